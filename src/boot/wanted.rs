//! What of the chain is loaded before the disk can be read, for the list of drivers.

use crate::{Chain, Link, Outcome, Part};
use vmrescue_windows::{BootReason, BootWanted};

impl Chain {
    /// The files that the loader takes, in its order.
    pub fn wanted(&self) -> Vec<BootWanted> {
        self.links.iter().filter_map(wanted).collect()
    }
}

fn wanted(link: &Link) -> Option<BootWanted> {
    let reason = match (link.part, &link.of, &link.service) {
        (Part::Loader | Part::Kernel | Part::Driver, Some(of), _) => BootReason::Import { of: of.clone() },
        (Part::Loader, ..) => BootReason::Loader,
        (Part::Kernel, ..) => BootReason::Kernel,
        (Part::Nls, ..) => BootReason::Data { what: link.why.clone() },
        // Turn and group are those of the service.
        (Part::Driver, None, Some(service)) => {
            BootReason::Driver { service: service.clone(), order: 0, group: String::new() }
        }
        _ => return None,
    };
    let problem = link.broken.as_ref().map(|broken| broken.words.clone());
    let stops = link.broken.as_ref().is_some_and(|broken| broken.outcome == Outcome::Stops);
    let program = link.part != Part::Nls;
    Some(BootWanted { path: link.place.clone(), reason, problem, stops, program })
}
