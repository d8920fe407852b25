//! `Pushy.job_text`: a job as people read it; and what they are asked.

use magnus::{Module, Object, RModule, Value, function};
use pushy_core::present::{Screen, job_text};
use pushy_core::watch::INTERRUPT_QUESTION;

use crate::convert;

fn render(job: Value, columns: Option<usize>, colour: bool) -> Result<String, magnus::Error> {
    Ok(job_text(&convert::json(job)?, Screen { columns, colour }))
}

pub(crate) fn init(module: RModule) -> Result<(), magnus::Error> {
    module.const_set("INTERRUPT_QUESTION", INTERRUPT_QUESTION)?;
    module.define_singleton_method("render_job", function!(render, 3))?;
    Ok(())
}
