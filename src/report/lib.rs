//! What `inspect` and `diagnose` found, as one tree ([`Inspection`]), and its forms: JSON by serde, [`text`], and [`html`](html::html).
//!
//! Text and HTML print the same [`sections`] of facts, so that neither says what the other does not.

mod escape;
mod history;
pub mod html;
mod inspection;
mod map;
mod script;
mod sections;
mod style;
mod tables;
mod text;

pub use escape::escaped;
pub use inspection::{
    ControlSetsView, DefectView, Gap, Inspection, InstallationView, PartitionView, TableView, VolumeView,
};
pub use sections::{Section, Table, sections};
pub use style::STYLE;
pub use text::text;
