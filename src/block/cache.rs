//! A read cache: the last used aligned chunks of a device, in bounded memory.

use super::{BlockDevice, Disk, Extent, Geometry};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use vmrescue_base::error::Result;

/// Bytes of one chunk.
const CHUNK_BYTES: u64 = 64 << 10;

struct Chunk {
    bytes: Arc<[u8]>,
    last_used: u64,
}

struct State {
    chunks: HashMap<u64, Chunk>,
    clock: u64,
}

/// A device that remembers what was read last. The inner device must not change meanwhile.
pub struct Cache {
    inner: Disk,
    capacity: usize,
    state: Mutex<State>,
}

impl Cache {
    /// Caches at most `bytes` of `inner` (at least one chunk).
    pub fn new(inner: Disk, bytes: usize) -> Cache {
        let capacity = (bytes / CHUNK_BYTES as usize).max(1);
        Cache { inner, capacity, state: Mutex::new(State { chunks: HashMap::new(), clock: 0 }) }
    }

    fn chunk(&self, number: u64) -> Result<Arc<[u8]>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.clock += 1;
        let now = state.clock;
        if let Some(chunk) = state.chunks.get_mut(&number) {
            chunk.last_used = now;
            return Ok(Arc::clone(&chunk.bytes));
        }
        let start = number * CHUNK_BYTES;
        let length = (self.inner.len() - start).min(CHUNK_BYTES) as usize;
        let bytes: Arc<[u8]> = self.inner.read_vec(start, length)?.into();
        if state.chunks.len() >= self.capacity {
            // Few chunks, seldom full: looking for the oldest costs less than keeping an order.
            let oldest =
                state.chunks.iter().min_by_key(|(_, chunk)| chunk.last_used).map(|(number, _)| *number);
            oldest.map(|number| state.chunks.remove(&number));
        }
        state.chunks.insert(number, Chunk { bytes: Arc::clone(&bytes), last_used: now });
        Ok(bytes)
    }
}

impl BlockDevice for Cache {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        // Large reads would push everything else out.
        if buf.len() as u64 >= 4 * CHUNK_BYTES {
            return self.inner.read_at(offset, buf);
        }
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let chunk = self.chunk(at / CHUNK_BYTES)?;
            let within = (at % CHUNK_BYTES) as usize;
            let count = (chunk.len() - within).min(buf.len() - done);
            buf[done..done + count].copy_from_slice(&chunk[within..within + count]);
            done += count;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.inner.extent_at(offset)
    }
}
