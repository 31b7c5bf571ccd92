//! From a host name to the addresses that may be connected to. The addresses that were checked
//! are the ones that are dialled; nothing is looked up twice (threats N1, N2, N13).

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use crate::base::limits::{DNS_ADDRESSES_MAX, DNS_CACHE_AGE, DNS_CACHE_MAX, DNS_LOOKUPS_MAX};
use crate::base::time::Instant;

use super::blocking::BlockingJobs;

/// Looks names up; blocks, on a thread made for it.
pub trait Resolve: Debug + Send + Sync {
    /// The addresses of `host`, which may be an address already.
    fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The system's resolver: `/etc/hosts`, DNS, whatever nsswitch says.
#[derive(Clone, Copy, Debug)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let addresses = (host, 0).to_socket_addrs()?;
        Ok(addresses.take(DNS_ADDRESSES_MAX).map(|address| address.ip()).collect())
    }
}

/// A resolver with a bounded memory, off the control thread.
#[derive(Debug)]
pub(in crate::daemon) struct Lookup {
    resolver: Arc<dyn Resolve>,
    jobs: BlockingJobs,
    cache: RefCell<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    names: HashMap<String, (Instant, Vec<IpAddr>)>,
}

impl Lookup {
    pub(in crate::daemon) fn new(resolver: Arc<dyn Resolve>) -> Self {
        Self { resolver, jobs: BlockingJobs::new("troc-dns", DNS_LOOKUPS_MAX), cache: RefCell::default() }
    }

    /// The addresses of `host`, at most [`DNS_ADDRESSES_MAX`]; none if it has none or the look-up
    /// failed. The caller sets the deadline.
    pub(in crate::daemon) async fn addresses(&self, host: &str, port: u16, now: Instant) -> Vec<SocketAddr> {
        let with_port = |ips: &[IpAddr]| ips.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
        if let Ok(ip) = host.parse() {
            return with_port(&[ip]);
        }
        if let Some(ips) = self.cache.borrow().get(host, now) {
            return with_port(ips);
        }
        let (resolver, name) = (self.resolver.clone(), host.to_owned());
        let found = self.jobs.run(move || resolver.resolve(&name)).await;
        let Ok(Ok(mut ips)) = found else { return Vec::new() };
        ips.truncate(DNS_ADDRESSES_MAX);
        let addresses = with_port(&ips);
        if !ips.is_empty() {
            self.cache.borrow_mut().insert(host, ips, now);
        }
        addresses
    }
}

impl Cache {
    fn get(&self, host: &str, now: Instant) -> Option<&[IpAddr]> {
        let (since, ips) = self.names.get(host)?;
        (now.since(*since) < DNS_CACHE_AGE).then_some(ips)
    }

    fn insert(&mut self, host: &str, ips: Vec<IpAddr>, now: Instant) {
        if self.names.len() >= DNS_CACHE_MAX {
            self.names.retain(|_, (since, _)| now.since(*since) < DNS_CACHE_AGE);
        }
        if self.names.len() >= DNS_CACHE_MAX {
            self.names.clear();
        }
        self.names.insert(host.to_owned(), (now, ips));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Gives as many addresses as the name has letters, and counts how often it is asked.
    #[derive(Debug, Default)]
    struct Counting(AtomicUsize);

    impl Resolve for Counting {
        fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            match host {
                "missing.test" => Err(io::ErrorKind::NotFound.into()),
                "empty.test" => Ok(Vec::new()),
                _ => Ok((0..host.len() as u32).map(|n| IpAddr::from(n.to_be_bytes())).collect()),
            }
        }
    }

    #[tokio::test]
    async fn n13_answers_are_capped_and_remembered_for_a_while() {
        let resolver = Arc::new(Counting::default());
        let lookup = Lookup::new(resolver.clone());
        let asked = || resolver.0.load(Ordering::Relaxed);
        let late = Instant(DNS_CACHE_AGE.0);
        for count in [DNS_ADDRESSES_MAX - 1, DNS_ADDRESSES_MAX, DNS_ADDRESSES_MAX + 1] {
            let found = lookup.addresses(&"a".repeat(count), 5, Instant(0)).await;
            assert_eq!(found.len(), count.min(DNS_ADDRESSES_MAX));
        }
        resolver.0.store(0, Ordering::Relaxed);
        let many = "a".repeat(1000);
        assert_eq!(lookup.addresses(&many, 5, Instant(0)).await.len(), DNS_ADDRESSES_MAX);
        assert_eq!(lookup.addresses(&many, 6, Instant(late.0 - 1)).await.len(), DNS_ADDRESSES_MAX);
        assert_eq!(asked(), 1);
        assert_eq!(lookup.addresses(&many, 5, late).await.len(), DNS_ADDRESSES_MAX);
        assert_eq!(asked(), 2);
        for name in ["missing.test", "empty.test"] {
            assert!(lookup.addresses(name, 5, Instant(0)).await.is_empty());
        }
        // An address is nobody's business.
        assert_eq!(lookup.addresses("::1", 5, Instant(0)).await, ["[::1]:5".parse().unwrap()]);
        assert_eq!(asked(), 4);
    }

    #[test]
    fn n13_the_memory_is_bounded() {
        for count in [DNS_CACHE_MAX - 1, DNS_CACHE_MAX, DNS_CACHE_MAX + 1, 5 * DNS_CACHE_MAX] {
            let mut cache = Cache::default();
            (0..count).for_each(|n| cache.insert(&n.to_string(), vec![[1, 1, 1, 1].into()], Instant(0)));
            assert!(cache.names.len() <= DNS_CACHE_MAX);
            assert!(cache.get(&(count - 1).to_string(), Instant(0)).is_some());
        }
    }
}
