//! One Windows installation as objects: found on a disk by what its files and hives say; no raw offsets in here.
//!
//! * [`Machine`]: the disk, its volumes and installations, paths as the guest types them
//! * [`BootLayout`]: firmware, system partition, boot stores
//! * [`Unread`]: what was asked for and could not be read
//! * [`Service`]: services and drivers with the file behind each
//! * [`DriverReport`]: the same with load order, filters, signatures and the component store
//! * [`PeInfo`]: what a driver file says about itself
//! * [`Store`]: the component store: which component a file is of, which versions there are
//! * [`Updates`]: packages, and what waits for the next start
//! * [`facts::Facts`]: everything that `inspect` tells, one file a subject
//! * [`Dump`]: the header of a crash dump
//! * [`events`]: event logs, and what they say on starts, stops and crashes
//! * [`timeline`]: everything that has a time

mod asked;
mod authenticode;
pub mod bcd;
mod boot;
mod bugcheck;
mod catalog;
mod component_store;
mod der;
mod drivers;
mod dump;
pub mod events;
mod exact;
pub mod facts;
mod filters;
mod keys;
mod load_order;
mod lost;
mod machine;
mod pe;
mod pkcs7;
mod program;
mod roles;
mod services;
mod system_partition;
pub mod testing;
pub mod timeline;
mod unread;
mod updates;
mod version_resource;

use vmrescue_payload::xml;

pub use asked::{Asked, did_you_mean};
pub use authenticode::{PeHashes, Signature, broken_signature, embedded_signature, pe_digest, pe_hashes};
pub use boot::{BootLayout, Loader, boot_layout, boot_loader, boot_stores, load_store, partition_ref};
pub use bugcheck::bugcheck_name;
pub use catalog::catalog_hashes;
pub use component_store::{
    Candidate, ComponentName, Identity, ManifestState, Origin, Store, StoreFile, Tie, Tried, WinnerSource,
    store_versions,
};
pub use drivers::{
    BootFile, BootReason, BootWanted, Driver, DriverOptions, DriverReport, FileFacts, OtherSet,
    SetDifference, Verdict, driver_report,
};
pub use dump::{DUMP_HEADER_BYTES, Dump, KernelDump};
pub use exact::{
    ExactFile, ExactReport, Explained, FileState, Wanted, exact_files, explain_file, links_of, make_file,
    wanted_file,
};
pub use facts::facts;
pub use filters::{Filter, FilterPlace, filters};
pub use load_order::LoadOrder;
pub use lost::{Identities, identities, lost_volumes, open_with_lost};
pub use machine::{HIVES, Installation, Machine, Volume, config_path, hive_of};
pub use pe::{Payload, PeInfo, base_manifest, machine_name, packing, payload_kind, pe_checksum, pe_imports};
pub use program::{Content, Program};
pub use roles::{Role, roles};
pub use services::{Service, expand_image_path, services, services_seen};
pub use system_partition::{LostEntry, SystemPartition, system_partition_state};
pub use unread::{Unread, Unseen, Weight};
pub use updates::{
    AgentResult, BuildStep, FileOperation, LogEnd, LogLine, LogSession, Package, PendingXml, Queue, Session,
    SessionPhase, Story, StoryLevel, StoryLine, Updates, code_name, parse_pending_xml, state_name,
    update_story, updates,
};
