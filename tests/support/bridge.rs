//! Hosts on one switch, each in a network namespace of its own: nothing of it is in the machine's network.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::skip;

/// The switch and its hosts, removed at the end.
pub struct Bridge {
    switch: String,
    hosts: Vec<String>,
}

fn ip(words: &[&str]) -> bool {
    Command::new("ip").args(words).output().is_ok_and(|output| output.status.success())
}

impl Bridge {
    /// `None` where namespaces cannot be made, which is a failure under `CI=true`; `what` needs them.
    pub fn new(what: &str, hosts: usize) -> Option<Self> {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let prefix = format!("troc-test-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let switch = format!("{prefix}s");
        if !rustix::process::geteuid().is_root() || !ip(&["netns", "add", &switch]) {
            skip(what, "network namespaces need root and iproute2");
            return None;
        }
        let bridge = Self { switch, hosts: (0..hosts).map(|at| format!("{prefix}h{at}")).collect() };
        let switch = bridge.switch.as_str();
        assert!(ip(&["-n", switch, "link", "add", "switch", "type", "bridge"]));
        assert!(ip(&["-n", switch, "link", "set", "switch", "up"]));
        for (at, host) in bridge.hosts.iter().enumerate() {
            let (port, address) = (format!("p{at}"), format!("{}/24", Self::address(at)));
            assert!(ip(&["netns", "add", host]));
            let pair = ["type", "veth", "peer", "name", "eth0", "netns", host];
            assert!(ip(&[&["-n", switch, "link", "add", &port], &pair[..]].concat()));
            assert!(ip(&["-n", switch, "link", "set", &port, "master", "switch", "up"]));
            assert!(ip(&["-n", host, "addr", "add", &address, "dev", "eth0"]));
            assert!(ip(&["-n", host, "link", "set", "lo", "up"]));
            assert!(ip(&["-n", host, "link", "set", "eth0", "up"]));
        }
        Some(bridge)
    }

    /// The address of a host.
    pub fn address(host: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, host as u8 + 1)
    }

    /// The same command on a host.
    pub fn within(&self, host: usize, command: &Command) -> Command {
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", &self.hosts[host]]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            inside.env(name, value.expect("set, not removed"));
        }
        inside
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        for name in self.hosts.iter().chain([&self.switch]) {
            ip(&["netns", "del", name]);
        }
    }
}
