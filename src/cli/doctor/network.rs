//! Sockets: queue lengths, buffer limits and network cards.

use crate::base::human::{format_rate, format_size};

use super::{Check, kernel_numbers, kernel_text};

/// Connections that may wait for `accept` when a swarm arrives at once.
const SOMAXCONN_WANTED: u64 = 4096;
/// Largest socket buffer that keeps 40 MiB/s flowing over 100 ms.
const TCP_BUFFER_WANTED: u64 = 4 << 20;
/// UDP trackers need no more than the usual default.
const CORE_BUFFER_WANTED: u64 = 200 << 10;

pub(super) fn checks() -> Vec<Check> {
    let mut checks = vec![
        somaxconn(kernel_numbers("/proc/sys/net/core/somaxconn").first().copied()),
        tcp_buffers("tcp_rmem", &kernel_numbers("/proc/sys/net/ipv4/tcp_rmem")),
        tcp_buffers("tcp_wmem", &kernel_numbers("/proc/sys/net/ipv4/tcp_wmem")),
    ];
    for name in ["rmem_max", "wmem_max"] {
        let value = kernel_numbers(&format!("/proc/sys/net/core/{name}")).first().copied();
        checks.push(core_buffer(name, value));
    }
    checks.extend(cards());
    checks
}

fn somaxconn(value: Option<u64>) -> Check {
    match value {
        Some(count) if count >= SOMAXCONN_WANTED => Check::ok("somaxconn", count.to_string()),
        found => {
            let found = found.map_or_else(|| "unknown".to_owned(), |count| count.to_string());
            let remedy = format!("sudo sysctl -w net.core.somaxconn={SOMAXCONN_WANTED}");
            Check::warn("somaxconn", found, remedy)
        }
    }
}

/// Third number: the most that a socket's buffer grows to, and so the most that is under way at once.
fn tcp_buffers(name: &str, numbers: &[u64]) -> Check {
    let Some(&most) = numbers.get(2) else {
        return Check::warn(name, "unknown", "mount /proc");
    };
    let reach = format_rate(most.saturating_mul(10));
    let found = format!("up to {}: {reach} per connection over 100 ms", format_size(most));
    if most >= TCP_BUFFER_WANTED {
        return Check::ok(name, found);
    }
    let remedy = format!("sudo sysctl -w net.ipv4.{name}='4096 131072 {}'", TCP_BUFFER_WANTED * 4);
    Check::warn(name, found, remedy)
}

fn core_buffer(name: &str, value: Option<u64>) -> Check {
    match value {
        Some(bytes) if bytes >= CORE_BUFFER_WANTED => Check::ok(name, format_size(bytes)),
        found => {
            let found = found.map_or_else(|| "unknown".to_owned(), format_size);
            Check::warn(name, found, format!("sudo sysctl -w net.core.{name}=4194304"))
        }
    }
}

/// One line per network card that is up; the loopback device is none.
fn cards() -> Vec<Check> {
    let Ok(entries) = std::fs::read_dir("/sys/class/net") else {
        return vec![Check::warn("network cards", "unknown", "mount /sys")];
    };
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name != "lo");
    names.sort();
    let text = |name: &str, what: &str| kernel_text(&format!("/sys/class/net/{name}/{what}"));
    let up = names.iter().filter(|name| text(name, "operstate").as_deref() != Some("down"));
    let checks: Vec<Check> = up
        .map(|name| {
            let speed = text(name, "speed").and_then(|speed| speed.parse().ok());
            let mtu = text(name, "mtu").unwrap_or_else(|| "unknown".to_owned());
            card(name, speed, &mtu)
        })
        .collect();
    if checks.is_empty() {
        return vec![Check::warn(
            "network cards",
            "none that is up",
            "only this host can be a peer: ip link",
        )];
    }
    checks
}

/// `mbit` is what the driver says; virtual cards say nothing or -1.
fn card(name: &str, mbit: Option<i64>, mtu: &str) -> Check {
    let speed = match mbit {
        Some(mbit @ 1..) => format!("{mbit} Mbit/s, {}", format_rate((mbit as u64).saturating_mul(125_000))),
        _ => "speed unknown".to_owned(),
    };
    Check::ok("network card", format!("{name}: {speed}, MTU {mtu}"))
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn small_kernel_limits_come_with_the_command_that_raises_them() {
        for (check, command) in [
            (somaxconn(Some(SOMAXCONN_WANTED - 1)), "net.core.somaxconn=4096"),
            (somaxconn(None), "net.core.somaxconn=4096"),
            (tcp_buffers("tcp_rmem", &[4096, 131_072, TCP_BUFFER_WANTED - 1]), "net.ipv4.tcp_rmem="),
            (core_buffer("rmem_max", Some(CORE_BUFFER_WANTED - 1)), "net.core.rmem_max="),
        ] {
            assert_eq!(check.level, Level::Warn);
            assert!(check.remedy.unwrap().contains(command), "{command}");
        }
        assert_eq!(somaxconn(Some(SOMAXCONN_WANTED)).level, Level::Ok);
        assert_eq!(tcp_buffers("tcp_wmem", &[1, 2, TCP_BUFFER_WANTED]).level, Level::Ok);
        assert_eq!(core_buffer("wmem_max", Some(CORE_BUFFER_WANTED)).level, Level::Ok);
        assert_eq!(tcp_buffers("tcp_rmem", &[1, 2]).level, Level::Warn);
    }

    #[test]
    fn a_card_without_a_speed_is_no_fault() {
        assert_eq!(card("eth0", Some(10_000), "1500").found, "eth0: 10000 Mbit/s, 1.16 GiB/s, MTU 1500");
        for unknown in [None, Some(-1), Some(0)] {
            assert_eq!(card("eth0", unknown, "9000").found, "eth0: speed unknown, MTU 9000");
        }
    }
}
