//! The server's own signs of life, to every node at once (4.9): at the start and every interval (decision 47).

use super::tables::{Queued, Timer};
use super::{LogLevel, Output, Server};
use crate::time::Millis;

impl Server {
    pub(super) fn publish_heartbeat(&mut self) {
        let interval = Millis(self.config.heartbeat_interval.0.max(1));
        self.timers.set(Timer::Heartbeat, self.now.mono + interval);
        let body = self.beat.body(self.beats, self.now.wall);
        self.beats += 1;
        match self.signer.header(&body) {
            Ok(header) => self.out.push_back(Queued::Ready(Output::Publish { header, body })),
            Err(error) => {
                self.log(LogLevel::Error, None, None, None, format!("no heartbeat: {error}"));
            }
        }
    }
}
