//! A sink for the tasks that an actor or a connection spawns: when it is dropped, they are too.
//!
//! Work that belongs to an actor but runs on another lane (a mount on `Lane::Blocking`) must not outlive it: a restarted actor
//! would find two of itself at work. Bounded, because nothing grows without limit.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Env, Lane, TaskHandle};

/// Keeps tasks until they end; drops those that still run when it is dropped.
pub struct TaskSink {
    tasks: Vec<(Arc<AtomicBool>, TaskHandle)>,
    len_max: usize,
}

/// The sink is full; the future was dropped without a start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{len_max} tasks run already")]
pub struct TooManyTasks {
    pub len_max: usize,
}

/// Set when the task's future is gone, however it went.
struct Ended(Arc<AtomicBool>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl TaskSink {
    pub fn new(len_max: usize) -> Self {
        Self { tasks: Vec::new(), len_max }
    }

    /// Runs `future` on `lane` until it is done or the sink is dropped.
    pub fn spawn<F>(&mut self, env: &Env, lane: Lane, future: F) -> Result<(), TooManyTasks>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if self.len() == self.len_max {
            return Err(TooManyTasks { len_max: self.len_max });
        }
        let ended = Arc::new(AtomicBool::new(false));
        let guard = Ended(ended.clone());
        let task = env.spawn(lane, async move {
            let _guard = guard;
            future.await;
        });
        self.tasks.push((ended, task));
        Ok(())
    }

    /// How many still run.
    pub fn len(&mut self) -> usize {
        self.tasks.retain(|(ended, _)| !ended.load(Ordering::Acquire));
        self.tasks.len()
    }

    pub fn is_empty(&mut self) -> bool {
        self.len() == 0
    }
}

impl Drop for TaskSink {
    fn drop(&mut self) {
        self.tasks.iter().for_each(|(_, task)| task.abort());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;
    use std::time::Duration;

    use super::{TaskSink, TooManyTasks};
    use crate::env::{Lane, Machine};

    #[test]
    fn tasks_end_with_their_sink_and_ended_ones_make_room() {
        let machine = Machine::start();
        let (sender, ends) = sync_channel::<()>(1);
        let mut sink = TaskSink::new(1);
        let waits = async move {
            let _sender = sender; // Dropped with the task: then `ends` is closed.
            std::future::pending::<()>().await;
        };
        sink.spawn(machine.env(), Lane::Node, waits).unwrap();
        let refused = sink.spawn(machine.env(), Lane::Node, async {});
        assert_eq!(refused, Err(TooManyTasks { len_max: 1 }));
        drop(sink);
        assert!(
            ends.recv_timeout(Duration::from_secs(20))
                .is_err_and(|it| { it == std::sync::mpsc::RecvTimeoutError::Disconnected })
        );

        let (sender, ends) = sync_channel::<()>(1);
        let mut sink = TaskSink::new(1);
        sink.spawn(machine.env(), Lane::Node, async move { drop(sender) }).unwrap();
        assert!(ends.recv().is_err());
        while !sink.is_empty() {
            std::thread::yield_now();
        }
    }
}
