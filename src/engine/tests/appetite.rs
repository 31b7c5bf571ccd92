//! Who is looked at when a block has made room for another request.

use super::*;
use crate::base::limits::HUNGRY_LOOKS_MAX;

#[test]
fn for_a_block_that_came_so_many_of_the_hungry_are_looked_at_and_all_by_the_tick() {
    for hungry in [HUNGRY_LOOKS_MAX - 1, HUNGRY_LOOKS_MAX, HUNGRY_LOOKS_MAX + 1] {
        let mut rig = Rig::new(1, false);
        for _ in 0..hungry {
            rig.seed();
        }
        rig.perform();
        // They have left meanwhile, so that each of them is looked at once.
        let gone = |index| ConnId { index: 9_000 + index, generation: 0 };
        rig.engine.hungry = (0..hungry as u32).map(gone).collect();
        rig.engine.crumbs = true;
        rig.perform();
        let left = hungry.saturating_sub(HUNGRY_LOOKS_MAX);
        assert_eq!(rig.engine.hungry.len(), left, "{hungry}");
        rig.perform();
        assert_eq!(rig.engine.hungry.len(), left, "{hungry}: no block has come since");
        rig.engine.handle_tick(rig.now + Span::from_ms(50));
        let gone = rig.engine.hungry.iter().filter(|conn| conn.index >= 9_000);
        assert_eq!(gone.count(), 0, "{hungry}");
    }
}
