//! Hosts in one machine: network namespaces on a switch of their own, whose packets can be dropped.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::system;

/// Hosts by number from 0. They are gone when dropped, with whatever was between them.
pub struct Namespaces {
    hosts: Vec<String>,
    switch: String,
}

impl Namespaces {
    /// None without the right to make them or the programs for it, which is said: `what` then is not tested here.
    pub fn new(what: &str, hosts: usize) -> Option<Namespaces> {
        let skipped = |why: &str| {
            eprintln!("skipped, {what} is not tested here: {why}");
            None
        };
        if !rustix::process::geteuid().is_root() {
            return skipped("only root makes network namespaces");
        }
        for program in ["ip", "iptables"] {
            if let Err(error) = system(program, &["-V"]) {
                return skipped(&error);
            }
        }
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = format!(
            "curvine-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        // Whole from here on: what was made is removed when a later step fails.
        let made = Namespaces {
            hosts: (0..hosts).map(|host| format!("{unique}-{host}")).collect(),
            switch: format!("{unique}-switch"),
        };
        made.build();
        Some(made)
    }

    fn build(&self) {
        let there = |name: &str, args: &str| on(name, || must("ip", args));
        for name in [&self.switch].into_iter().chain(&self.hosts) {
            must("ip", &format!("netns add {name}"));
        }
        let switch = &self.switch;
        there(switch, "link add bridge type bridge");
        there(switch, "link set bridge up");
        for (number, host) in self.hosts.iter().enumerate() {
            let address = self.address(number);
            there(
                switch,
                &format!("link add port{number} type veth peer name eth0 netns {host}"),
            );
            there(switch, &format!("link set port{number} master bridge up"));
            there(host, "link set lo up");
            there(host, &format!("address add {address}/24 dev eth0"));
            there(host, "link set eth0 up");
        }
    }

    pub fn names(&self) -> &[String] {
        &self.hosts
    }

    /// The IP address of a host.
    pub fn address(&self, host: usize) -> String {
        format!("10.77.0.{}", host + 1)
    }

    /// From now on packets get lost on this way: this share of them.
    pub fn lose(&self, from: usize, to: usize, share: f64) {
        let (to, from) = (&self.hosts[to], self.address(from));
        let some = match share < 1.0 {
            true => format!("-m statistic --mode random --probability {share}"),
            false => String::new(),
        };
        let rule = format!("-A INPUT -s {from} {some} -j DROP");
        on(to, || must("iptables", &rule));
    }

    /// All packets arrive again.
    pub fn heal(&self) {
        for host in &self.hosts {
            on(host, || must("iptables", "-F INPUT"));
        }
    }

    /// Runs something on a host.
    pub fn on_host<T: Send>(&self, host: usize, work: impl FnOnce() -> T + Send) -> T {
        on(&self.hosts[host], work)
    }
}

/// Runs something in a network namespace: on a thread of its own, whose sockets, threads and processes are there too.
///
/// `ip netns exec` would do more: a process in it keeps a copy of every mount, which a power cut of a disk must not meet.
pub fn on<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    let path = format!("/run/netns/{namespace}");
    let there = move || {
        let namespace = File::open(path).expect("the namespace is there");
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("root may enter it");
        work()
    };
    std::thread::scope(|scope| {
        let done = scope.spawn(there).join();
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn must(program: &str, args: &str) {
    let split: Vec<_> = args.split_whitespace().collect();
    if let Err(error) = system(program, &split) {
        panic!("{program} {args}: {error}");
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in self.hosts.iter().chain([&self.switch]) {
            // One that was not made yet is not there.
            let _ = system("ip", &["netns", "del", name]);
        }
    }
}
