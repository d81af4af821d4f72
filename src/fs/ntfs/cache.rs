//! A small bounded cache in two generations: when the young one is full it becomes the old one, and the old one goes.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// Values by key; never more than twice `room` of them.
pub(crate) struct Generations<K, V> {
    room: usize,
    maps: Mutex<[HashMap<K, Arc<V>>; 2]>,
}

impl<K: Eq + Hash + Clone, V> Generations<K, V> {
    /// An empty cache.
    pub(crate) fn new(room: usize) -> Generations<K, V> {
        Generations { room, maps: Mutex::new([HashMap::new(), HashMap::new()]) }
    }

    /// The value, if it is here; it becomes young again.
    pub(crate) fn get(&self, key: &K) -> Option<Arc<V>> {
        let mut maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = maps[0].get(key) {
            return Some(Arc::clone(value));
        }
        let value = maps[1].remove(key)?;
        self.insert(&mut maps, key.clone(), Arc::clone(&value));
        Some(value)
    }

    /// Keeps a value.
    pub(crate) fn put(&self, key: K, value: V) -> Arc<V> {
        let value = Arc::new(value);
        let mut maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        self.insert(&mut maps, key, Arc::clone(&value));
        value
    }

    fn insert(&self, maps: &mut [HashMap<K, Arc<V>>; 2], key: K, value: Arc<V>) {
        if maps[0].len() >= self.room {
            maps[1] = std::mem::take(&mut maps[0]);
        }
        maps[0].insert(key, value);
    }
}
