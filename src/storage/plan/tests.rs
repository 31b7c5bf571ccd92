use std::collections::{HashMap, HashSet};

use super::*;
use crate::base::geometry::Geometry;
use crate::base::rng::Rng;
use crate::base::units::{CHUNK_BYTES, SLOT_PAYLOAD_BYTES};
use crate::storage::layout::FileSpan;

/// Files in memory that refuse what a disk with 4 KiB pages would refuse.
struct Disk {
    files: Vec<Vec<u8>>,
    direct_pages: HashSet<(u32, u64)>,
    buffered_pages: HashSet<(u32, u64)>,
}

struct Torrent {
    layout: Layout,
    geometry: Geometry,
    payload: Vec<u8>,
}

/// A torrent of up to 12 files whose lengths favour the awkward ones.
fn random_torrent(rng: &mut Rng) -> Torrent {
    let mut spans = Vec::new();
    for _ in 0..=rng.below(12) {
        let length = match rng.below(6) {
            0 => 0,
            1 => rng.below(10),
            2 => 4096 * rng.below(70),
            3 => 4096 * rng.below(70) + rng.below(3) + 4095,
            4 => rng.below(9000),
            _ => rng.below(700_000),
        };
        spans.push(FileSpan { length: length.into(), pad: rng.below(5) == 0 });
    }
    let layout = Layout::new(spans.into_iter());
    let geometry = Geometry::new(layout.total_bytes(), (16 << 10) * (1 + rng.below(40)));
    let mut payload: Vec<u8> = (0..layout.total_bytes()).map(|_| rng.next_u64() as u8 | 1).collect();
    for file in (0..layout.file_count()).map(FileIndex).filter(|&file| layout.is_pad(file)) {
        let (start, len) = (layout.file_start(file) as usize, layout.file_len(file) as usize);
        payload[start..start + len].fill(0);
    }
    Torrent { layout, geometry, payload }
}

fn pages(file: FileIndex, offset: u64, len: u32) -> impl Iterator<Item = (u32, u64)> {
    let page = u64::from(PAGE_BYTES);
    (offset / page..(offset + u64::from(len)).div_ceil(page)).map(move |at| (file.0, at))
}

impl Disk {
    fn new(layout: &Layout) -> Self {
        let len = |file| if layout.is_pad(file) { 0 } else { layout.file_len(file) as usize };
        let files = (0..layout.file_count()).map(|file| vec![0; len(FileIndex(file))]).collect();
        Self { files, direct_pages: HashSet::new(), buffered_pages: HashSet::new() }
    }

    fn write(&mut self, op: WriteOp, memory: &[u8]) {
        for page in pages(op.file, op.file_offset, op.len) {
            if op.kind == WriteKind::Direct {
                assert!(self.direct_pages.insert(page) && !self.buffered_pages.contains(&page), "{op:?}");
            } else {
                self.buffered_pages.insert(page);
                assert!(!self.direct_pages.contains(&page), "{op:?}");
            }
        }
        if op.kind == WriteKind::Direct {
            assert_aligned(op.file_offset, op.mem_offset, op.len);
        }
        let at = op.file_offset as usize;
        let bytes = &memory[op.mem_offset as usize..][..op.len as usize];
        self.files[op.file.0 as usize][at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// How many bytes came; a direct read past the end of the file spoils the rest of the memory.
    fn read(&self, op: ReadOp, memory: &mut [u8]) -> u32 {
        let memory = &mut memory[op.mem_offset as usize..][..op.len as usize];
        if op.kind == ReadKind::Zero {
            memory.fill(0);
            return op.len;
        }
        if op.kind == ReadKind::Direct {
            assert_aligned(op.file_offset, op.mem_offset, op.len);
            memory.fill(0xee);
        }
        let left = self.files[op.file.0 as usize].get(op.file_offset as usize..).unwrap_or_default();
        let len = left.len().min(memory.len());
        memory[..len].copy_from_slice(&left[..len]);
        len as u32
    }
}

fn assert_aligned(file_offset: u64, mem_offset: u32, len: u32) {
    let page = u64::from(PAGE_BYTES);
    assert!(file_offset.is_multiple_of(page) && mem_offset.is_multiple_of(PAGE_BYTES));
    assert!(len.is_multiple_of(PAGE_BYTES) && len > 0);
}

fn chunks(geometry: Geometry) -> impl Iterator<Item = (u64, u32)> {
    let all = (0..geometry.chunk_count()).map(move |at| (geometry.chunk_start(at), geometry.chunk_len(at)));
    all.filter(|&(_, len)| len > 0)
}

fn memory_with(torrent: &Torrent, start: u64, len: u32) -> Vec<u8> {
    let mut memory = vec![0xaa; SLOT_PAYLOAD_BYTES as usize];
    let residue = residue(&torrent.layout, start, len) as usize;
    assert!(residue < PAGE_BYTES as usize);
    memory[residue..residue + len as usize]
        .copy_from_slice(&torrent.payload[start as usize..][..len as usize]);
    memory
}

/// Writes all chunks by plan, reads them back by plan in any order of operations, and compares
/// with the payload; files hold exactly their bytes.
#[test]
fn random_torrents_survive_the_way_to_disk_and_back() {
    for seed in 0..150 {
        let mut rng = Rng::new(seed);
        let torrent = random_torrent(&mut rng);
        let mut disk = Disk::new(&torrent.layout);
        for (start, len) in chunks(torrent.geometry) {
            let memory = memory_with(&torrent, start, len);
            for op in write_plan(&torrent.layout, start, len) {
                disk.write(op, &memory);
            }
        }
        for file in torrent.layout.disk_files() {
            let (start, len) =
                (torrent.layout.file_start(file) as usize, torrent.layout.file_len(file) as usize);
            assert_eq!(disk.files[file.0 as usize], torrent.payload[start..start + len], "seed {seed}");
        }
        for (start, len) in chunks(torrent.geometry) {
            let mut memory = vec![0xbb; SLOT_PAYLOAD_BYTES as usize];
            let mut plan = read_plan(&torrent.layout, start, len);
            while !plan.is_empty() {
                let op = plan.swap_remove(rng.below(plan.len() as u32) as usize);
                assert!(op.satisfied(disk.read(op, &mut memory)), "seed {seed} {op:?}");
            }
            let wanted = memory_with(&torrent, start, len);
            let residue = residue(&torrent.layout, start, len) as usize;
            let range = residue..residue + len as usize;
            assert_eq!(memory[range.clone()], wanted[range], "seed {seed} chunk at {start}");
        }
    }
}

#[test]
fn reads_of_one_plan_never_share_memory() {
    for seed in 0..150 {
        let torrent = random_torrent(&mut Rng::new(seed));
        for (start, len) in chunks(torrent.geometry) {
            let mut ends: Vec<_> = read_plan(&torrent.layout, start, len)
                .iter()
                .map(|op| (op.mem_offset, op.mem_offset + op.len))
                .collect();
            ends.sort_unstable();
            assert!(ends.windows(2).all(|pair| pair[0].1 <= pair[1].0), "seed {seed}");
            assert!(ends.iter().all(|&(_, end)| end <= SLOT_PAYLOAD_BYTES));
        }
    }
}

fn one_file(length: u64) -> Layout {
    Layout::new(std::iter::once(FileSpan { length, pad: false }))
}

#[test]
fn an_aligned_chunk_is_one_direct_operation() {
    let layout = one_file(1 << 20);
    let write = write_plan(&layout, 256 << 10, CHUNK_BYTES);
    assert!(matches!(write[..], [WriteOp { kind: WriteKind::Direct, len: CHUNK_BYTES, mem_offset: 0, .. }]));
    let read = read_plan(&layout, 256 << 10, CHUNK_BYTES);
    assert!(matches!(read[..], [ReadOp { kind: ReadKind::Direct, len: CHUNK_BYTES, mem_offset: 0, .. }]));
}

#[test]
fn an_unaligned_chunk_of_one_file_is_read_at_once_and_written_with_two_edges() {
    let files = [FileSpan { length: 1000, pad: false }, FileSpan { length: 1 << 20, pad: false }];
    let layout = Layout::new(files.into_iter());
    let residue = residue(&layout, 256 << 10, CHUNK_BYTES);
    assert_eq!(residue, (CHUNK_BYTES - 1000) % PAGE_BYTES);
    let kinds: Vec<_> =
        write_plan(&layout, 256 << 10, CHUNK_BYTES).iter().map(|op| (op.kind, op.len)).collect();
    let direct = CHUNK_BYTES - PAGE_BYTES;
    assert_eq!(
        kinds,
        [(WriteKind::Buffered, 1000), (WriteKind::Direct, direct), (WriteKind::Buffered, PAGE_BYTES - 1000)]
    );
    let read = read_plan(&layout, 256 << 10, CHUNK_BYTES);
    let (len, need) = (CHUNK_BYTES + PAGE_BYTES, CHUNK_BYTES + residue);
    let file_offset = u64::from(CHUNK_BYTES - 1000 - residue);
    let file = FileIndex(1);
    assert_eq!(read, [ReadOp { file, file_offset, mem_offset: 0, len, need, kind: ReadKind::Direct }]);
}

#[test]
fn the_largest_run_decides_the_residue() {
    let spans = [(100, false), (5000, true), (200_000, false), (60_000, false)];
    let layout = Layout::new(spans.into_iter().map(|(length, pad)| FileSpan { length, pad }));
    assert_eq!(residue(&layout, 0, CHUNK_BYTES), (2 * PAGE_BYTES - 5100) % PAGE_BYTES);
    let direct: HashMap<_, _> = write_plan(&layout, 0, CHUNK_BYTES)
        .into_iter()
        .filter(|op| op.kind == WriteKind::Direct)
        .map(|op| (op.file, op.len))
        .collect();
    assert_eq!(direct, HashMap::from([(FileIndex(2), 200_000 - 200_000 % PAGE_BYTES)]));
}

#[test]
fn a_read_past_the_end_of_its_file_is_satisfied_by_the_bytes_there_are() {
    let layout = one_file(5000);
    let [op] = read_plan(&layout, 0, CHUNK_BYTES)[..] else { panic!("one read") };
    assert_eq!((op.len, op.need, op.kind), (8192, 5000, ReadKind::Direct));
    assert!(op.satisfied(5000) && !op.satisfied(4999));
    assert_eq!(op.advance(5000), None);
    assert_eq!(op.advance(0), Some(op));
    assert_eq!(op.advance(100), Some(op), "less than a page is no progress");
    let rest = op.advance(4999).unwrap();
    assert_eq!((rest.file_offset, rest.mem_offset, rest.len, rest.need), (4096, 4096, 4096, 904));
}

/// Any sequence of short transfers ends with every byte moved once or more, aligned throughout.
#[test]
fn short_transfers_go_on_where_they_stopped() {
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let torrent = random_torrent(&mut rng);
        let mut disk = Disk::new(&torrent.layout);
        for (start, len) in chunks(torrent.geometry).take(4) {
            let memory = memory_with(&torrent, start, len);
            for op in write_plan(&torrent.layout, start, len) {
                let mut rest = Some(op);
                while let Some(op) = rest {
                    let done = rng.below(op.len + 1);
                    disk.direct_pages.clear();
                    let cut = done - done % if op.kind == WriteKind::Direct { PAGE_BYTES } else { 1 };
                    if cut > 0 {
                        disk.write(WriteOp { len: cut, ..op }, &memory);
                    }
                    rest = op.advance(done);
                }
            }
            for op in torrent.layout.extents(start, len).filter(|extent| extent.file.is_some()) {
                let file = &disk.files[op.file.unwrap().0 as usize];
                let at = start as usize + op.offset as usize;
                let (from, len) = (op.file_offset as usize, op.len as usize);
                assert_eq!(file[from..from + len], torrent.payload[at..at + len], "seed {seed}");
            }
        }
    }
}
