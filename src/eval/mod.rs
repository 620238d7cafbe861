//! How good a prediction is: the metrics of the papers, for one frame on the screen and for a whole set.

pub mod command;
pub mod compare;
pub mod examiner;
pub mod live;
pub mod metrics;
pub mod pictures;
pub mod precision;
pub mod tally;

pub use command::run;
pub use examiner::{Examiner, Given};
pub use metrics::aligned;
pub use tally::{Figures, Tally};
