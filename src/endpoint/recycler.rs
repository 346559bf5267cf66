//! Recycles the memory of message heads among the requests of one worker, for all endpoints.
//!
//! Allocation per request would take 1,800 more instructions for header maps (of 34,900) and 800 more for written heads (of
//! 33,900) (callgrind, `bench.sh --instructions`, plain, 64 connections, medians of three runs, 2026-11-26).

use std::cell::{Cell, RefCell};
use std::fmt;

use http::HeaderMap;

/// The capacity for a request head. Typical heads have 2 to 3 KiB, including the bearer.
const HEAD_CAPACITY: usize = 4 * 1024;
/// The maximum number of kept maps. Chosen: the number of concurrent requests of a busy worker.
const MAX_MAPS: usize = 64;
/// The maximum capacity of a kept map.
const MAX_MAP_CAPACITY: usize = 48;
/// The initial capacity of a map, for the headers of typical responses. Each idle connection keeps the map of its last response.
const MAP_CAPACITY: usize = 6;

/// Reusable memory for message heads.
#[derive(Default)]
pub(super) struct Recycler {
    head: Cell<Vec<u8>>,
    /// The header maps of finished requests, for new responses. hyper itself reuses the map of a response for the next request.
    maps: RefCell<Vec<HeaderMap>>,
}

impl Recycler {
    /// Returns an empty buffer to write a head into.
    pub(super) fn take_head(&self) -> Vec<u8> {
        let head = self.head.take();
        if head.capacity() == 0 { Vec::with_capacity(HEAD_CAPACITY) } else { head }
    }

    /// Keeps the buffer of a written head for later use, unless it has grown large.
    pub(super) fn recycle_head(&self, mut head: Vec<u8>) {
        if head.capacity() <= HEAD_CAPACITY {
            head.clear();
            self.head.set(head);
        }
    }

    /// Returns an empty header map.
    pub(super) fn take_map(&self) -> HeaderMap {
        self.maps.borrow_mut().pop().unwrap_or_else(|| HeaderMap::with_capacity(MAP_CAPACITY))
    }

    /// Keeps a header map for later use, unless it has grown large.
    pub(super) fn recycle_map(&self, mut map: HeaderMap) {
        let mut maps = self.maps.borrow_mut();
        if maps.len() < MAX_MAPS && (1..=MAX_MAP_CAPACITY).contains(&map.capacity()) {
            map.clear();
            maps.push(map);
        }
    }
}

impl fmt::Debug for Recycler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recycler").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::HOST;

    use super::*;

    #[test]
    fn recycled_memory_is_reused_and_empty() {
        let recycler = Recycler::default();
        let mut map = HeaderMap::with_capacity(20);
        map.append(HOST, HeaderValue::from_static("a"));
        map.append(HOST, HeaderValue::from_static("b"));
        let capacity = map.capacity();
        recycler.recycle_map(map);
        let map = recycler.take_map();
        assert!(map.is_empty() && map.capacity() == capacity);
        assert!(recycler.take_map().capacity() >= MAP_CAPACITY, "no kept map is left, so a new one is returned");

        recycler.recycle_head(b"GET".to_vec());
        assert!(recycler.take_head().is_empty());
    }

    #[test]
    fn large_buffers_and_surplus_maps_are_dropped() {
        let recycler = Recycler::default();
        recycler.recycle_map(HeaderMap::with_capacity(1000));
        recycler.recycle_map(HeaderMap::new());
        assert!(recycler.maps.borrow().is_empty());
        (0..2 * MAX_MAPS).for_each(|_| recycler.recycle_map(HeaderMap::with_capacity(4)));
        assert_eq!(recycler.maps.borrow().len(), MAX_MAPS);
        recycler.recycle_head(Vec::with_capacity(2 * HEAD_CAPACITY));
        assert_eq!(recycler.take_head().capacity(), HEAD_CAPACITY);
    }
}
