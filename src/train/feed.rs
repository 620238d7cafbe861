//! Samples on the fly: threads make blocks of them while the network learns.
//!
//! The order follows from the seed alone. Neighbours of a block look alike, so the blocks of a window are shuffled
//! together; whoever goes on after an interruption says how many samples it has had.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, ensure};

use super::task::Task;
use crate::pipeline::guarded;
use crate::synth::random::Random;

/// Blocks that are shuffled together.
const WINDOW: u64 = 64;

/// Numbers of blocks from here on are for validation, and no feed comes so far.
pub const VALIDATION: u64 = 1 << 40;

type Block<S> = (u64, Result<Vec<S>>);

/// Hands out samples.
pub struct Feed<S> {
    seed: u64,
    /// `None` when it is being dropped.
    blocks: Option<Receiver<Block<S>>>,
    /// Blocks that came before their turn.
    early: BTreeMap<u64, Vec<S>>,
    window: u64,
    ready: Vec<S>,
    /// Samples of a block.
    per_block: usize,
    /// Samples that were had before this feed began.
    skip: u64,
    makers: Vec<JoinHandle<()>>,
}

impl<S: Send + 'static> Feed<S> {
    /// Starts `threads` makers. `had` samples of this seed are passed over: all blocks have as many samples as the first.
    pub fn start<T: Task<Sample = S>>(task: &Arc<T>, seed: u64, had: u64, threads: usize) -> Result<Self> {
        let per_block = guarded("making samples", || task.block(block_number(seed, 0)))?.len();
        ensure!(per_block > 0, "there are no samples");
        let per_window = WINDOW * per_block as u64;
        let window = had / per_window;
        let next = Arc::new(AtomicU64::new(window * WINDOW));
        let (sender, blocks) = sync_channel(WINDOW as usize);
        let makers = (0..threads.max(1)).map(|i| {
            let (task, next, sender) = (Arc::clone(task), Arc::clone(&next), sender.clone());
            let make = move || make_blocks(&*task, seed, &next, &sender);
            thread::Builder::new().name(format!("samples {i}")).spawn(make).context("no thread to make samples")
        });
        let makers = makers.collect::<Result<_>>()?;
        Ok(Self {
            seed,
            blocks: Some(blocks),
            early: BTreeMap::new(),
            window,
            ready: Vec::new(),
            per_block,
            skip: had % per_window,
            makers,
        })
    }

    /// The next samples.
    pub fn take(&mut self, count: usize) -> Result<Vec<S>> {
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count {
            match self.ready.pop() {
                Some(sample) => taken.push(sample),
                None => self.fill()?,
            }
        }
        Ok(taken)
    }

    fn fill(&mut self) -> Result<()> {
        let wanted = self.window * WINDOW..(self.window + 1) * WINDOW;
        while wanted.clone().any(|number| !self.early.contains_key(&number)) {
            let blocks = self.blocks.as_ref().context("the feed has ended")?;
            let (number, block) = blocks.recv().context("the threads that make samples have ended")?;
            let block = block.context("no more samples")?;
            // Else nobody could tell where an interrupted training was.
            ensure!(block.len() == self.per_block, "a block of {} samples, not {}", block.len(), self.per_block);
            self.early.insert(number, block);
        }
        self.ready = wanted.flat_map(|number| self.early.remove(&number).unwrap_or_default()).collect();
        let mut random = Random::fork(self.seed, self.window);
        for last in (1..self.ready.len()).rev() {
            self.ready.swap(last, random.below(last + 1));
        }
        self.ready.truncate(self.ready.len().saturating_sub(std::mem::take(&mut self.skip) as usize));
        self.window += 1;
        Ok(())
    }
}

fn block_number(seed: u64, number: u64) -> u64 {
    // Seeds begin far from each other.
    (Random::fork(seed, 0).bits() >> 25) + number
}

fn make_blocks<T: Task>(task: &T, seed: u64, next: &AtomicU64, sender: &SyncSender<Block<T::Sample>>) {
    // What a block does in parallel, it does here: the other processors have samples of their own to make.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let make = || task.block(block_number(seed, number));
        let block = guarded("making samples", || match &pool {
            Ok(pool) => pool.install(make),
            Err(_) => make(),
        });
        let failed = block.is_err();
        if sender.send((number, block)).is_err() || failed {
            return;
        }
    }
}

impl<S> Drop for Feed<S> {
    fn drop(&mut self) {
        // Makers end when nobody takes their blocks.
        self.blocks = None;
        for maker in self.makers.drain(..) {
            // A panic has become an error on the thread itself.
            let _ = maker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::layers::Pass;
    use crate::train::task::Loss;

    struct Numbers;

    impl Task for Numbers {
        type Sample = u64;
        fn block(&self, number: u64) -> Result<Vec<u64>> {
            Ok((0..5).map(|i| number * 5 + i).collect())
        }
        fn loss(&self, _: &Pass, _: &[&u64]) -> Result<Loss> {
            anyhow::bail!("nothing to learn")
        }
        fn errors(&self, _: &Pass, _: &[&u64]) -> Result<Vec<(&'static str, f64, usize)>> {
            Ok(Vec::new())
        }
        fn learns(&self) -> String {
            "numbers".to_owned()
        }
        fn config_json(&self) -> String {
            String::new()
        }
    }

    #[test]
    fn the_order_follows_from_the_seed_and_goes_on_where_it_was() {
        let task = Arc::new(Numbers);
        let take = |had, threads, count| Feed::start(&task, 7, had, threads).unwrap().take(count).unwrap();
        let all = take(0, 1, 1000);
        assert_eq!(all, take(0, 3, 1000), "not of the threads");
        for had in [0, 1, 319, 320, 321, 700] {
            assert_eq!(all[had..had + 250], take(had as u64, 2, 250), "after {had}");
        }
        let mut sorted = all[..320].to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), 320, "a window holds each sample once");
        assert_ne!(all[..320], sorted, "in another order");
        assert_ne!(all[..10], Feed::start(&task, 8, 0, 1).unwrap().take(10).unwrap()[..], "of another seed");
    }
}
