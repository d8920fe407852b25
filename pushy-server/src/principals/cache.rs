//! Short memory with one question at a time: who asks for what is being asked already waits for that answer.
//!
//! An answer is as old as its question: it is kept from the moment the question left, so that a lifetime is a promise
//! about how long something revoked can still hold; that there was none counts from when that was clear, so that a question
//! which took longer than that is not asked again by everybody who waited for it. Nothing runs in the background: a caller that goes away leaves the
//! question to the next one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Unanswered;

/// Where the time comes from: the system, or a test's hand.
pub type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

/// The system's clock.
pub fn system_clock() -> Clock {
    Arc::new(Instant::now)
}

type Answer<V> = Result<V, Unanswered>;

/// What is known about one key.
struct Slot<V> {
    answer: Mutex<Option<(Answer<V>, Instant)>>,
    /// Held by whoever asks.
    asking: tokio::sync::Mutex<()>,
}

impl<V> Slot<V> {
    fn fresh(&self, now: Instant) -> Option<Answer<V>>
    where
        V: Clone,
    {
        let answer = lock(&self.answer);
        answer.as_ref().filter(|(_, until)| now < *until).map(|(answer, _)| answer.clone())
    }
}

/// Two generations: the elder is dropped whole when the younger is full, which bounds both at no cost per look.
struct Slots<V> {
    young: HashMap<String, Arc<Slot<V>>>,
    old: HashMap<String, Arc<Slot<V>>>,
}

/// Answers by key, each for its lifetime.
pub(super) struct Cache<V> {
    clock: Clock,
    slots: Mutex<Slots<V>>,
    /// Of one generation; 0: nothing is kept and no question shared.
    room: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is a single assignment or insertion.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<V: Clone> Cache<V> {
    /// A memory for at most `most` answers; 0: none, every question is asked.
    pub(super) fn new(clock: Clock, most: usize) -> Cache<V> {
        let slots = Slots { young: HashMap::new(), old: HashMap::new() };
        Cache { clock, slots: Mutex::new(slots), room: most.div_ceil(2) }
    }

    /// The answer for a key: kept, or from `ask`. `lifetime` says how long an answer is kept.
    pub(super) async fn get<F>(
        &self,
        key: &str,
        lifetime: impl Fn(&Answer<V>) -> Duration,
        ask: impl FnOnce() -> F,
    ) -> Answer<V>
    where
        F: Future<Output = Answer<V>>,
    {
        if self.room == 0 {
            return ask().await;
        }
        let slot = self.slot(key);
        if let Some(answer) = slot.fresh((self.clock)()) {
            return answer;
        }
        let _asking = slot.asking.lock().await;
        let began = (self.clock)();
        if let Some(answer) = slot.fresh(began) {
            return answer;
        }
        let answer = ask().await;
        let lifetime = lifetime(&answer);
        let from = if answer.is_ok() { began } else { (self.clock)() };
        *lock(&slot.answer) = (!lifetime.is_zero()).then(|| (answer.clone(), from + lifetime));
        answer
    }

    fn slot(&self, key: &str) -> Arc<Slot<V>> {
        let mut slots = lock(&self.slots);
        if let Some(slot) = slots.young.get(key) {
            return Arc::clone(slot);
        }
        let slot = slots.old.remove(key).unwrap_or_else(|| {
            Arc::new(Slot { answer: Mutex::new(None), asking: tokio::sync::Mutex::new(()) })
        });
        if slots.young.len() >= self.room {
            slots.old = std::mem::take(&mut slots.young);
        }
        slots.young.insert(key.to_owned(), Arc::clone(&slot));
        slot
    }

    /// Forgets a key.
    pub(super) fn forget(&self, key: &str) {
        let mut slots = lock(&self.slots);
        slots.young.remove(key);
        slots.old.remove(key);
    }

    /// What is fresh now.
    pub(super) fn known(&self) -> Vec<V> {
        let now = (self.clock)();
        let slots = lock(&self.slots);
        let all = slots.young.values().chain(slots.old.values());
        all.filter_map(|slot| slot.fresh(now)?.ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    const SECOND: Duration = Duration::from_secs(1);

    /// A cache, its clock's hand, and how often it asked.
    struct Bench {
        cache: Cache<u32>,
        hand: Arc<Mutex<Instant>>,
        asked: AtomicU32,
    }

    impl Bench {
        fn new(most: usize) -> Bench {
            let hand = Arc::new(Mutex::new(Instant::now()));
            let clock = Arc::clone(&hand);
            let cache = Cache::new(Arc::new(move || *lock(&clock)), most);
            Bench { cache, hand, asked: AtomicU32::new(0) }
        }

        fn pass(&self, time: Duration) {
            *lock(&self.hand) += time;
        }

        /// The number of the question whose answer this is; a key `bad…` has none.
        async fn get(&self, key: &str) -> Answer<u32> {
            let lifetime = |answer: &Answer<u32>| if answer.is_ok() { 5 * SECOND } else { SECOND };
            let ask = || async {
                let number = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
                tokio::task::yield_now().await;
                if key.starts_with("bad slow") {
                    self.pass(5 * SECOND);
                }
                if key.starts_with("bad") { Err(Unanswered::BadGateway("no".into())) } else { Ok(number) }
            };
            self.cache.get(key, lifetime, ask).await
        }

        fn asked(&self) -> u32 {
            self.asked.load(Ordering::Relaxed)
        }
    }

    /// The answers of many who ask at once; the first of them goes away.
    async fn many(bench: &Bench, key: &str, count: usize) -> Vec<Answer<u32>> {
        let mut waiting: Vec<_> = (0..count).map(|_| Box::pin(bench.get(key))).collect();
        // All have begun before the first is finished.
        for future in &mut waiting {
            let poll = std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_ready()));
            assert!(!poll.await);
        }
        drop(waiting.remove(0));
        let mut answers = Vec::new();
        for future in waiting {
            answers.push(future.await);
        }
        answers
    }

    #[tokio::test]
    async fn answers_live_as_long_as_they_may() {
        let bench = Bench::new(100);
        assert_eq!(bench.get("a").await, Ok(1));
        bench.pass(5 * SECOND - Duration::from_millis(1));
        assert_eq!(bench.get("a").await, Ok(1));
        bench.pass(Duration::from_millis(1));
        assert_eq!(bench.get("a").await, Ok(2));
        bench.cache.forget("a");
        assert_eq!(bench.get("a").await, Ok(3));
        assert!(bench.get("bad").await.is_err());
        bench.pass(SECOND - Duration::from_millis(1));
        assert!(bench.get("bad").await.is_err());
        assert_eq!(bench.asked(), 4);
        bench.pass(Duration::from_millis(1));
        assert!(bench.get("bad").await.is_err());
        assert_eq!(bench.asked(), 5);
        assert_eq!(bench.cache.known(), [3]);
    }

    #[tokio::test]
    async fn one_asks_and_all_hear() {
        let bench = Bench::new(100);
        // Whoever asked goes away: the next one asks.
        assert_eq!(many(&bench, "a", 50).await, vec![Ok(2); 49]);
        assert_eq!(bench.asked(), 2);
    }

    #[tokio::test]
    async fn a_question_that_took_long_in_vain_is_asked_once_for_all() {
        let bench = Bench::new(100);
        let answers = many(&bench, "bad slow", 50).await;
        assert!(answers.iter().all(Result::is_err));
        // By the one who went away, and by one for all others.
        assert_eq!(bench.asked(), 2);
    }

    #[tokio::test]
    async fn memory_is_bounded() {
        let bench = Bench::new(100);
        for number in 0..10_000 {
            bench.get(&number.to_string()).await.expect("an answer");
        }
        let held = |slots: &Slots<u32>| slots.young.len() + slots.old.len();
        assert!(held(&lock(&bench.cache.slots)) <= 100);
        // What was asked for last is still known.
        let asked = bench.asked();
        bench.get("9999").await.expect("an answer");
        assert_eq!(bench.asked(), asked);
    }
}
