//! Bytes held, and values tied to the bytes they take.

use std::any::Any;
use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::{Budget, ByteCount, ReserveError};

/// So many bytes of a budget, held until this is dropped.
///
/// A reservation may be pieced together of several budgets ([`Reservation::merge`]), and may keep other
/// things alive as long as itself ([`Reservation::attach`]): the slot of a window, say, which is free again
/// only when the data that came through it is.
#[must_use = "dropping it gives the bytes back"]
#[derive(Default)]
pub struct Reservation {
    parts: Vec<Part>,
    holds: Vec<Box<dyn Any + Send + Sync>>,
}

struct Part {
    budget: Budget,
    bytes: u64,
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.give_back(self.bytes);
        }
    }
}

impl Reservation {
    /// No bytes of no budget.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Bytes that were just taken. A reservation of none remembers its budget too, and can grow.
    pub(crate) fn taken(budget: Budget, bytes: u64) -> Self {
        Self { parts: vec![Part { budget, bytes }], holds: Vec::new() }
    }

    /// The bytes held.
    pub fn size(&self) -> ByteCount {
        self.parts.iter().map(|part| ByteCount::new(part.bytes)).sum()
    }

    /// Takes so many more bytes of the budget that this reservation came from, if they are free. Never waits.
    ///
    /// # Errors
    /// [`ReserveError::NotNow`]; the reservation is as it was. An [`empty`](Self::empty) one belongs to no
    /// budget and cannot grow.
    pub fn try_grow(&mut self, bytes: ByteCount) -> Result<(), ReserveError> {
        if bytes == ByteCount::ZERO {
            return Ok(());
        }
        let Some(part) = self.parts.first_mut() else {
            return Err(ReserveError::NotNow { budget: "none".into(), wanted: bytes, free: ByteCount::ZERO });
        };
        part.budget.grow(bytes.get())?;
        part.bytes += bytes.get();
        Ok(())
    }

    /// Gives back all but so many bytes; does nothing when it holds fewer.
    pub fn shrink_to(&mut self, bytes: ByteCount) {
        let mut excess = self.size().saturating_sub(bytes).get();
        while excess > 0 {
            let Some(part) = self.parts.last_mut() else { return };
            let back = part.bytes.min(excess);
            part.bytes -= back;
            excess -= back;
            part.budget.give_back(back);
            if part.bytes == 0 && self.parts.len() > 1 {
                self.parts.pop();
            }
        }
    }

    /// Splits off so many bytes, or all there are; what is split off can grow from the same budget. What is
    /// attached stays with `self`.
    pub fn split(&mut self, bytes: ByteCount) -> Self {
        let mut wanted = bytes.get();
        let mut split = Self::empty();
        for part in self.parts.iter_mut().rev() {
            let moved = part.bytes.min(wanted);
            if moved > 0 {
                part.bytes -= moved;
                wanted -= moved;
                split.parts.push(Part { budget: part.budget.clone(), bytes: moved });
            }
        }
        if let (true, Some(part)) = (split.parts.is_empty(), self.parts.first()) {
            split.parts.push(Part { budget: part.budget.clone(), bytes: 0 });
        }
        split
    }

    /// Takes over all that the other holds, of whatever budget, and what is attached to it.
    pub fn merge(&mut self, mut other: Self) {
        for mut part in std::mem::take(&mut other.parts) {
            match self.parts.iter_mut().find(|mine| mine.budget.is_same(&part.budget)) {
                Some(mine) => mine.bytes += std::mem::take(&mut part.bytes),
                None => self.parts.push(part),
            }
        }
        self.holds.append(&mut other.holds);
    }

    /// Keeps `guard` alive until this reservation, or what it is merged into, is dropped.
    pub fn attach(&mut self, guard: impl Any + Send + Sync) {
        self.holds.push(Box::new(guard));
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("size", &self.size())
            .field("n_attached", &self.holds.len())
            .finish()
    }
}

/// A value and the bytes reserved for it. The bytes go back when the value is dropped.
#[derive(Debug)]
pub struct Charged<T> {
    value: T,
    reservation: Reservation,
}

impl<T> Charged<T> {
    /// Ties the value to its reservation.
    pub fn new(value: T, reservation: Reservation) -> Self {
        Self { value, reservation }
    }

    /// The bytes reserved.
    pub fn size(&self) -> ByteCount {
        self.reservation.size()
    }

    /// Another value under the same reservation.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Charged<U> {
        Charged { value: f(self.value), reservation: self.reservation }
    }

    /// The value alone: the bytes go back now, and so does whatever is attached to them.
    pub fn into_inner(self) -> T {
        self.value
    }

    /// The reservation, to shrink it or to attach to it.
    pub fn reservation_mut(&mut self) -> &mut Reservation {
        &mut self.reservation
    }

    /// The two apart. The bytes are held as long as the reservation lives, not the value.
    pub fn into_parts(self) -> (T, Reservation) {
        (self.value, self.reservation)
    }
}

impl<T> Deref for Charged<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Charged<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}
