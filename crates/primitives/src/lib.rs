#![doc = include_str!("../README.md")]

mod budget;
mod byte_count;
mod reservation;
mod sync;

#[cfg(not(loom))]
mod batch;
#[cfg(not(loom))]
mod buffer;
#[cfg(not(loom))]
mod merge;
#[cfg(not(loom))]
mod pipeline;
#[cfg(not(loom))]
mod ring;
#[cfg(not(loom))]
mod tap;
#[cfg(not(loom))]
mod tasks;
#[cfg(not(loom))]
mod throttle;
#[cfg(not(loom))]
mod window;

pub use budget::{Budget, Reserve, ReserveError};
pub use byte_count::{ByteCount, ParseByteCountError};
pub use reservation::{Charged, Reservation};

#[cfg(not(loom))]
pub use self::{
    batch::{BatchLimits, batch, try_batch},
    buffer::{BufferClosed, BufferReceiver, BufferSender, DEFAULT_BUFFER_ITEMS, TrySendError, buffer},
    merge::{Merged, merge},
    pipeline::{BoxError, Pipeline},
    ring::{
        Crossing, Cut, Events, Level, Next, Reader, Ring, RingClosed, RingLimits, RingStats, Runs, SlowReader,
    },
    tap::tap,
    tasks::{Owed, Task, TaskError, Tasks, panic_message},
    throttle::{Throttle, throttle},
    window::{Window, WindowLimit, window, window_ordered},
};
