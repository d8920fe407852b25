//! Lets old jobs go: a timer that tells the store, in batches small enough that nobody waits behind one.

use std::sync::Arc;
use std::time::Duration;

use pushy_core::Result;
use pushy_core::time::{Millis, Wall};

use crate::clock;
use crate::config::Config;
use crate::store::{Prune, Store};

/// Between two looks for old jobs.
const INTERVAL: Duration = Duration::from_secs(60);
/// Between two batches: others write meanwhile.
const PAUSE: Duration = Duration::from_millis(5);
/// A job that finished so long ago is no longer in anybody's memory, in microseconds.
const SETTLED: i64 = 60_000_000;
const DAY: i64 = 86_400_000_000;

/// The rule of the settings at this moment; `None`: everything is kept for ever.
pub fn rule(config: &Config, now: Wall) -> Option<Prune> {
    if config.keep_jobs_days.is_none() && config.keep_jobs.is_none() {
        return None;
    }
    let micros = |time: Millis, factor: i64| i64::try_from(time.0).unwrap_or(0).saturating_mul(factor);
    // A job goes with its feed, from which a start makes again what organizations' feeds remember.
    let remembered = micros(config.linger, 2_000).max(micros(config.feed_retention, 1_000));
    Some(Prune {
        settled: Wall(now.0.saturating_sub(SETTLED.max(remembered))),
        before: config.keep_jobs_days.map(|days| Wall(now.0.saturating_sub(i64::from(days) * DAY))),
        keep: config.keep_jobs.map(u64::from),
    })
}

/// Deletes everything that the rule lets go; answers how many rows went.
///
/// # Errors
/// When the store cannot be written.
pub async fn round(store: &dyn Store, rule: Prune) -> Result<u64> {
    let mut gone = 0;
    loop {
        match store.prune(rule).await? {
            0 => return Ok(gone),
            rows => gone += rows,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Goes on for as long as the server runs.
pub(crate) async fn run(store: Arc<dyn Store>, config: Config) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Some(rule) = rule(&config, clock::wall()) else { return };
        match round(&*store, rule).await {
            Ok(0) => {}
            Ok(gone) => tracing::info!(rows = gone, "old jobs are deleted"),
            Err(e) => tracing::warn!("old jobs stay for now: {e}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_rule_follows_the_settings() {
        let now = Wall(1_000 * DAY);
        let check = |text: &str, wanted: Option<(Option<i64>, Option<u64>)>| {
            let config = Config::parse(Path::new("/x"), "server.toml", text).unwrap();
            let found = rule(&config, now);
            assert_eq!(found.map(|r| (r.before.map(|at| at.0 / DAY), r.keep)), wanted, "{text}");
            if let Some(rule) = found {
                let feeds = i64::try_from(config.feed_retention.0).unwrap() * 1000;
                assert!(rule.settled.0 <= now.0 - SETTLED.max(feeds), "{text}");
            }
        };
        check("", Some((None, Some(100_000))));
        check("keep_jobs = 0", None);
        check("keep_jobs = 0\nkeep_jobs_days = 30", Some((Some(970), None)));
        check("keep_jobs = 5\nkeep_jobs_days = 1\nlinger = 600", Some((Some(999), Some(5))));
        check("keep_jobs = 5\nfeed_retention = 3600", Some((None, Some(5))));
    }
}
