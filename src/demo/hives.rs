//! The hives of the demo disk.

use crate::windows::{DRIVERS, GROUPS};
use vmrescue_base::error::Result;
use vmrescue_base::text::utf16le_bytes;
use vmrescue_base::time::FileTime;
use vmrescue_registry::{DataType, HiveEditor};
use vmrescue_windows::bcd::HiveChange;

const SUBSYSTEM: &str = r"%SystemRoot%\system32\csrss.exe ObjectDirectory=\Windows SharedSection=1024,20480,768 Windows=On SubSystemType=Windows ServerDll=basesrv,1 ServerDll=winsrv:UserServerDllInitialization,3 ServerDll=sxssrv,4 ProfileControl=Off MaxRequestThreads=16";

struct Builder(HiveEditor);

impl Builder {
    fn new(root: &str) -> Result<Builder> {
        HiveEditor::new_hive(root).map(Builder)
    }

    fn text(&mut self, key: &str, name: &str, text: &str) -> Result<()> {
        self.0.set_value(key, name, DataType::SZ, &utf16le_bytes(&format!("{text}\0"))).map(|_| ())
    }

    fn number(&mut self, key: &str, name: &str, number: u32) -> Result<()> {
        self.0.set_value(key, name, DataType::DWORD, &number.to_le_bytes()).map(|_| ())
    }

    fn finish(self) -> Result<Vec<u8>> {
        Ok(self.0.finish(FileTime::now())?.bytes)
    }
}

/// A hive with a root only.
pub(super) fn empty(root: &str) -> Result<Vec<u8>> {
    Builder::new(root)?.finish()
}

/// SYSTEM with two control sets.
pub(super) fn system() -> Result<Vec<u8>> {
    let mut hive = Builder::new("ROOT")?;
    for (name, value) in [("Current", 1), ("Default", 1), ("Failed", 0), ("LastKnownGood", 2)] {
        hive.number("Select", name, value)?;
    }
    for set in ["ControlSet001", "ControlSet002"] {
        let control = format!(r"{set}\Control");
        hive.text(&format!(r"{control}\ComputerName\ComputerName"), "ComputerName", "CONTOSO-SQL01")?;
        hive.text(&format!(r"{control}\Session Manager\Environment"), "PROCESSOR_ARCHITECTURE", "AMD64")?;
        hive.number(&format!(r"{control}\Terminal Server"), "fDenyTSConnections", 1)?;
        hive.number(&format!(r"{control}\Terminal Server\WinStations\RDP-Tcp"), "UserAuthentication", 1)?;
        let class = format!(r"{control}\Class\{{4d36e967-e325-11ce-bfc1-08002be10318}}");
        hive.0.set_value(&class, "UpperFilters", DataType::MULTI_SZ, &utf16le_bytes("partmgr\0\0"))?;
        let class = format!(r"{control}\Class\{{71a27cdd-812a-11d0-bec7-08002be2092f}}");
        hive.0.set_value(&class, "UpperFilters", DataType::MULTI_SZ, &utf16le_bytes("volsnap\0\0"))?;
        hive.0.set_value(&class, "LowerFilters", DataType::MULTI_SZ, &utf16le_bytes("fvevol\0\0"))?;
        let session = format!(r"{control}\Session Manager\SubSystems");
        hive.text(&session, "Kmode", r"\SystemRoot\System32\win32k.sys")?;
        hive.text(&session, "Windows", SUBSYSTEM)?;
        let pages = format!(r"{control}\Nls\CodePage");
        for (name, text) in [("ACP", "1252"), ("OEMCP", "437"), ("1252", "c_1252.nls"), ("437", "c_437.nls")]
        {
            hive.text(&pages, name, text)?;
        }
        let language = format!(r"{control}\Nls\Language");
        for (name, text) in [("Default", "0409"), ("InstallLanguage", "0409"), ("0409", "l_intl.nls")] {
            hive.text(&language, name, text)?;
        }
        let groups = utf16le_bytes(&format!("{}\0\0", GROUPS.join("\0")));
        hive.0.set_value(&format!(r"{control}\ServiceGroupOrder"), "List", DataType::MULTI_SZ, &groups)?;
        for (name, start, error_control, group, _) in DRIVERS {
            let key = format!(r"{set}\Services\{name}");
            hive.number(&key, "Start", start)?;
            hive.number(&key, "Type", if matches!(name, "Ntfs" | "FltMgr" | "FileInfo") { 2 } else { 1 })?;
            hive.number(&key, "ErrorControl", error_control)?;
            hive.text(&key, "ImagePath", &format!(r"System32\drivers\{name}.sys"))?;
            if !group.is_empty() {
                hive.text(&key, "Group", group)?;
            }
        }
        let service = format!(r"{set}\Services\TermService");
        hive.number(&service, "Start", 3)?;
        hive.number(&service, "Type", 0x20)?;
        hive.text(&service, "ImagePath", r"%SystemRoot%\System32\svchost.exe -k NetworkService")?;
    }
    hive.finish()
}

/// SOFTWARE of a Windows Server 2019.
pub(super) fn software() -> Result<Vec<u8>> {
    let mut hive = Builder::new("ROOT")?;
    let key = r"Microsoft\Windows NT\CurrentVersion";
    for (name, text) in [
        ("ProductName", "Windows Server 2019 Datacenter"),
        ("EditionID", "ServerDatacenter"),
        ("ReleaseId", "1809"),
        ("CurrentBuildNumber", "17763"),
        ("InstallationType", "Server"),
        ("SystemRoot", r"C:\Windows"),
    ] {
        hive.text(key, name, text)?;
    }
    hive.number(key, "UBR", 7558)?;
    let package = r"Package_for_RollupFix~31bf3856ad364e35~amd64~~17763.7558.1.6";
    let packages = format!(r"Microsoft\Windows\CurrentVersion\Component Based Servicing\Packages\{package}");
    hive.number(&packages, "CurrentState", 112)?;
    hive.finish()
}

/// COMPONENTS with nothing pending.
pub(super) fn components() -> Result<Vec<u8>> {
    let mut hive = Builder::new("ROOT")?;
    hive.text("ServicingStackVersions", "10.0.17763.7558", "10.0.17763.7558")?;
    hive.finish()
}

/// A boot store as a hive.
pub(super) fn boot_store(changes: &[HiveChange]) -> Result<Vec<u8>> {
    let mut hive = Builder::new("NewStoreRoot")?;
    for change in changes {
        match change {
            HiveChange::CreateKey { key } => {
                hive.0.create_key(key)?;
            }
            HiveChange::SetValue { key, name, data_type, data } => {
                hive.0.set_value(key, name, DataType(*data_type), data)?;
            }
            HiveChange::DeleteKey { key } => {
                hive.0.delete_key(key, true)?;
            }
        }
    }
    hive.finish()
}
