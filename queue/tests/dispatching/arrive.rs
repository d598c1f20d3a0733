//! Requests that come, in the words of a test: each has a waiter, which is told all that happens to it.

use std::time::Instant;

use kembed_queue::dispatcher::Arrival;
use kembed_queue::{Ask, Dispatcher, News, Past, Ticket, Told};

pub trait Arrive<T> {
    /// A request comes. It is granted or refused at once, or waits: its waiter is told now or later.
    #[must_use = "waiters must be told"]
    fn arrive(&mut self, ask: Ask, waiter: T, now: Instant) -> (Ticket, News<T>);

    /// The same, after what it went through at other gateways.
    #[must_use = "waiters must be told"]
    fn arrive_from_elsewhere(&mut self, ask: Ask, past: Past, waiter: T, now: Instant) -> (Ticket, News<T>);
}

impl<T> Arrive<T> for Dispatcher<T> {
    fn arrive(&mut self, ask: Ask, waiter: T, now: Instant) -> (Ticket, News<T>) {
        self.arrive_from_elsewhere(ask, Past::default(), waiter, now)
    }

    fn arrive_from_elsewhere(&mut self, ask: Ask, past: Past, waiter: T, now: Instant) -> (Ticket, News<T>) {
        let mut waiter = Some(waiter);
        let make = || waiter.take().expect("one waiter is made at most");
        let Arrival { ticket, word, mut news } = self.enter(ask, past, make, now);
        news.extend(waiter.zip(word).map(|(waiter, word)| Told { waiter, word }));
        (ticket, news)
    }
}
