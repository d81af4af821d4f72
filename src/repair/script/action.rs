//! What a step does.

use serde::Deserialize;

/// The operation of a step, with its words; `${name}` stands for a parameter in all of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "op")]
pub enum Action {
    /// Sets a registry value; with `if-key`, only where that key is there.
    #[serde(rename = "registry.set")]
    RegistrySet {
        /// The key.
        key: String,
        /// Name of the value.
        value: String,
        /// REG_SZ, REG_DWORD, ...
        r#type: String,
        /// The data as reg.exe takes it.
        data: String,
        /// Do nothing when the key is not there.
        #[serde(default)]
        existing_key_only: bool,
    },
    /// Deletes a value, or without `value` the whole key.
    #[serde(rename = "registry.delete")]
    RegistryDelete {
        /// The key.
        key: String,
        /// Name of the value.
        value: Option<String>,
    },
    /// Takes a text out of a REG_MULTI_SZ.
    #[serde(rename = "registry.remove-from-list")]
    RegistryRemoveFromList {
        /// The key.
        key: String,
        /// Name of the value.
        value: String,
        /// The text; case does not matter.
        text: String,
    },
    /// Replaces a text inside REG_SZ values whose name fits a pattern.
    #[serde(rename = "registry.replace-text")]
    RegistryReplaceText {
        /// The key.
        key: String,
        /// Name of the values, with `*`.
        value: String,
        /// The text to find.
        from: String,
        /// What stands there afterwards.
        to: String,
    },
    /// Clears bits of a REG_DWORD, where it is there.
    #[serde(rename = "registry.clear-bits")]
    RegistryClearBits {
        /// The key.
        key: String,
        /// Name of the value.
        value: String,
        /// The bits, as a number.
        bits: String,
    },
    /// Writes what the transaction logs hold into a hive.
    #[serde(rename = "hive.replay-logs")]
    HiveReplayLogs {
        /// SYSTEM, SOFTWARE, ...
        hive: String,
    },
    /// Replaces a hive by its copy in RegBack, when that is whole.
    #[serde(rename = "hive.restore-regback")]
    HiveRestoreRegBack {
        /// SYSTEM, SOFTWARE, ...
        hive: String,
    },
    /// Lets Windows run a command once at its next start, by a startup script of the local group policy.
    #[serde(rename = "first-boot.run")]
    FirstBootRun {
        /// The command line.
        command: String,
    },
    /// Makes a local administrator at the next start, as `first-boot.run` does.
    #[serde(rename = "account.make-administrator")]
    AccountMakeAdministrator {
        /// Name of the user.
        user: String,
        /// Its password.
        password: String,
    },
    /// Sets the start of a service or driver.
    #[serde(rename = "service.set-start")]
    ServiceSetStart {
        /// Name of the service.
        service: String,
        /// boot, system, auto, demand, disabled. A start at boot also deletes `StartOverride`, and wants a file that can be loaded.
        start: String,
        /// In every control set that has it, not only in that of the next start.
        #[serde(default)]
        every_control_set: bool,
    },
    /// Copies a file inside the guest.
    #[serde(rename = "file.copy")]
    FileCopy {
        /// The file.
        from: String,
        /// The copy.
        to: String,
    },
    /// Renames a file, when it is there.
    #[serde(rename = "file.rename")]
    FileRename {
        /// Old path.
        from: String,
        /// New path.
        to: String,
    },
    /// Deletes files of a directory by a name or a pattern with `*`.
    #[serde(rename = "file.delete")]
    FileDelete {
        /// The file.
        path: String,
    },
    /// Puts boot files and boot store right for this installation.
    #[serde(rename = "bcd.rebuild")]
    BcdRebuild {},
    /// Gives the disk a system partition that starts this installation: entry, file system, boot files, store.
    #[serde(rename = "system-partition.repair")]
    SystemPartitionRepair {},
    /// Sets an element of the boot store.
    #[serde(rename = "bcd.set")]
    BcdSet {
        /// `{default}`, `{bootmgr}`, another alias, or an identifier.
        object: String,
        /// bcdedit's name, or `custom:` and its number.
        element: String,
        /// The value as bcdedit takes it.
        value: String,
    },
    /// Makes an object of the boot store, where it is not there.
    #[serde(rename = "bcd.create")]
    BcdCreate {
        /// An identifier of the script's own, or the alias of a well-known object.
        object: String,
        /// An entry that it is a copy of; it then goes to the end of the menu.
        #[serde(default)]
        like: String,
        /// What a new entry is, as bcdedit calls it.
        #[serde(default)]
        application: String,
        /// What the menu shows.
        #[serde(default)]
        description: String,
    },
    /// Moves an entry in a list of the boot manager.
    #[serde(rename = "bcd.order")]
    BcdOrder {
        /// The entry.
        object: String,
        /// first, last or remove.
        place: String,
        /// displayorder, bootsequence or toolsdisplayorder.
        #[serde(default)]
        list: String,
    },
    /// Deletes an element of the boot store, or without one the whole object and its mentions; where it is there.
    #[serde(rename = "bcd.delete")]
    BcdDelete {
        /// The object.
        object: String,
        /// The element.
        element: Option<String>,
    },
    /// Marks a partition of an MBR disk as active.
    #[serde(rename = "partition.set-active")]
    PartitionSetActive {
        /// Number of the partition.
        number: String,
    },
    /// Gives a partition another type.
    #[serde(rename = "partition.set-type")]
    PartitionSetType {
        /// Number of the partition.
        number: String,
        /// `efi`, `basic`, `recovery`, `reserved`, a GUID, or two digits.
        r#type: String,
    },
    /// Takes the attributes read-only and hidden from a partition of a GPT disk.
    #[serde(rename = "partition.clear-attributes")]
    PartitionClearAttributes {
        /// Number of the partition.
        number: String,
    },
    /// Writes both copies of the GPT from the one that is whole.
    #[serde(rename = "partition.repair-gpt")]
    PartitionRepairGpt {},
    /// Gives the volumes that no partition names their partitions again.
    #[serde(rename = "partition.restore")]
    PartitionRestore {},
    /// Writes boot code into a master boot record that has none.
    #[serde(rename = "partition.write-boot-code")]
    PartitionWriteBootCode {},
    /// Puts an NTFS boot sector and its copy right.
    #[serde(rename = "partition.repair-boot-sector")]
    PartitionRepairBootSector {
        /// Number of the partition.
        number: String,
    },
    /// Checks NTFS volumes and mends what has one right answer; refuses other damage.
    #[serde(rename = "file-system.repair")]
    FileSystemRepair {
        /// Number of the volume; all NTFS volumes when empty.
        #[serde(default)]
        volume: String,
    },
    /// Gives the partition of Windows a drive letter in MountedDevices.
    #[serde(rename = "drive-letter.set")]
    DriveLetterSet {
        /// The letter.
        letter: String,
    },
    /// Puts every file of the boot chain that is missing or broken back to a healthy copy; what no source has is named.
    #[serde(rename = "boot-files.restore")]
    BootFilesRestore {},
    /// Puts a file back to the exact bytes that the installed build expects, from wherever they can be made.
    #[serde(rename = "file.restore")]
    FileRestore {
        /// The file.
        path: String,
    },
    /// Puts a driver back to a healthy version of the component store.
    #[serde(rename = "driver.restore")]
    DriverRestore {
        /// File name (`ACPI.sys`), guest path, or name of the service.
        name: String,
        /// The version to restore; the newest healthy one when empty.
        #[serde(default)]
        version: String,
    },
    /// Makes a key.
    #[serde(rename = "registry.create-key")]
    RegistryCreateKey {
        /// The key.
        key: String,
    },
    /// Adds a text to a REG_MULTI_SZ.
    #[serde(rename = "registry.add-to-list")]
    RegistryAddToList {
        /// The key.
        key: String,
        /// Name of the value.
        value: String,
        /// The text.
        text: String,
    },
    /// Takes pairs out of PendingFileRenameOperations.
    #[serde(rename = "registry.remove-renames")]
    RegistryRemoveRenames {
        /// The key.
        key: String,
        /// Name of the value.
        value: String,
        /// Pattern for the first text of a pair.
        pattern: String,
    },
    /// Does what the text of a .reg file says.
    #[serde(rename = "registry.import")]
    RegistryImport {
        /// The text.
        #[serde(default)]
        text: String,
        /// A file of the host, in the folder of `--allow-host-files`.
        #[serde(default)]
        file: String,
    },
    /// Disables a service or driver and takes it out of the filters of all device classes.
    #[serde(rename = "service.disable")]
    ServiceDisable {
        /// Name of the service.
        service: String,
    },
    /// Makes a directory and those above it.
    #[serde(rename = "file.mkdir")]
    FileMkdir {
        /// The directory.
        path: String,
    },
    /// Lets accounts use a file or directory that is there, in addition to what is allowed already.
    #[serde(rename = "file.grant")]
    FileGrant {
        /// The file or directory.
        path: String,
        /// Accounts and their rights as icacls calls them: `SYSTEM:F, NETWORK SERVICE:R`.
        grants: String,
        /// The account that owns it from now on; as it is when empty.
        #[serde(default)]
        owner: String,
        /// All below as well.
        #[serde(default)]
        recursive: bool,
    },
    /// Gives a file this text.
    #[serde(rename = "file.write-text")]
    FileWriteText {
        /// The file.
        path: String,
        /// The text; line feeds become what Windows uses.
        text: String,
    },
    /// Copies a file of the host into the guest.
    #[serde(rename = "file.put")]
    FilePut {
        /// The file, in the folder of `--allow-host-files`.
        from: String,
        /// Guest path.
        to: String,
    },
    /// Copies files by pattern from `--source`.
    #[serde(rename = "donor.copy-tree")]
    DonorCopyTree {
        /// Path below the root of the donor's volume; its last part may be a pattern.
        from: String,
        /// Guest directory that they go into.
        to: String,
    },
    /// Copies a key with everything below from the registry of `--source`.
    #[serde(rename = "donor.copy-key")]
    DonorCopyKey {
        /// The key, here and there.
        key: String,
    },
}
