//! The HTML report, in a browser that is not ours: no console errors, no sideways scrolling on a phone, tables that sort and filter,
//! and nothing of the disk that becomes markup.

use crate::demo::vmrescue;
use crate::inspect::{kernel_dump, lay};
use crate::oracle::{run, skipped, tool};
use crate::unseen::{MIB, WINDOWS};
use std::path::{Path, PathBuf};
use vmrescue::demo::{Fault, break_it, build};
use vmrescue::image::{self, Kind};
use vmrescue::progress::Silent;
use vmrescue::registry::{DataType, Hive, HiveEditor};
use vmrescue::text::utf16le_bytes;
use vmrescue::time::FileTime;

const EVIL: &str = "<script>document.title='owned'</script><img src=x onerror=alert(1)>\"'";

/// A broken demo disk with names that want to be markup, and crashes.
fn disk(dir: &Path) -> PathBuf {
    let image = dir.join("a disk & <b>.vhdx");
    build(&image, Kind::VhdxDynamic).unwrap();
    let machine = vmrescue::windows::Machine::open(
        image::open_path(&image, &image::OpenOptions::default()).unwrap().disk,
    )
    .unwrap();
    let installation = machine.installation(None).unwrap();
    let edited = |name: &str, edit: &dyn Fn(&mut HiveEditor)| {
        let hive = Hive::parse(machine.hive(installation, name).unwrap().bytes().to_vec()).unwrap();
        let mut editor = HiveEditor::new(hive).unwrap();
        edit(&mut editor);
        editor.finish(FileTime::now()).unwrap().bytes
    };
    let text = |text: &str| utf16le_bytes(&format!("{text}\0"));
    let system = edited("SYSTEM", &|hive| {
        let key = format!(r"ControlSet001\Services\{EVIL}");
        hive.set_value(&key, "Start", DataType::DWORD, &3u32.to_le_bytes()).unwrap();
        hive.set_value(&key, "Type", DataType::DWORD, &1u32.to_le_bytes()).unwrap();
        hive.set_value(&key, "ImagePath", DataType::SZ, &text(EVIL)).unwrap();
        let name = r"ControlSet001\Control\ComputerName\ComputerName";
        hive.set_value(name, "ComputerName", DataType::SZ, &text(EVIL)).unwrap();
    });
    let software = edited("SOFTWARE", &|hive| {
        let servicing = r"Microsoft\Windows\CurrentVersion\Component Based Servicing\Packages";
        for n in 0..60u64 {
            let key = format!(r"{servicing}\Package_for_KB50{n:05}~31bf3856ad364e35~amd64~~17763.1.1.{n}");
            let time = 132_223_104_000_000_000 + n * 864_000_000_000 * 20;
            hive.set_value(&key, "CurrentState", DataType::DWORD, &112u32.to_le_bytes()).unwrap();
            hive.set_value(&key, "InstallTimeHigh", DataType::DWORD, &((time >> 32) as u32).to_le_bytes())
                .unwrap();
            hive.set_value(&key, "InstallTimeLow", DataType::DWORD, &(time as u32).to_le_bytes()).unwrap();
        }
        hive.set_value(r"Microsoft\Windows NT\CurrentVersion", "RegisteredOwner", DataType::SZ, &text(EVIL))
            .unwrap();
    });
    drop(machine);
    lay(
        &image,
        &[
            (r"Windows\System32\config\SYSTEM", system),
            (r"Windows\System32\config\SOFTWARE", software),
            (r"Windows\MEMORY.DMP", kernel_dump(0x7b, 133_000_000_000_000_000)),
            (r"Windows\Minidump\one.dmp", kernel_dump(0xef, 133_100_000_000_000_000)),
        ],
    );
    break_it(&image, &[Fault::AcpiZeroed], &Silent).unwrap();
    image
}

fn report(dir: &Path) -> (PathBuf, String) {
    let image = disk(dir);
    let page = dir.join("report.html");
    let output = vmrescue(&["inspect", image.to_str().unwrap(), "--html", page.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(&page).unwrap();
    (page, text)
}

#[test]
fn nothing_of_the_disk_becomes_markup_and_the_page_needs_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (_, page) = report(dir.path());
    assert!(page.contains("&lt;script&gt;document.title"), "the key is there, as text");
    assert!(!page.contains("<script>document.title") && !page.contains("<img"));
    assert_eq!(page.matches("<script").count(), 1, "only our own script");
    for outside in ["http://", "https://", "src=\"", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("This machine will not boot") && page.contains("restore-driver"));
    let verdict = page.find("This machine will not boot").unwrap();
    assert!(verdict < page.find("id=\"findings\"").unwrap(), "the verdict comes first");
    assert!(page.contains("INACCESSIBLE_BOOT_DEVICE") && page.contains("CRITICAL_PROCESS_DIED"));
    // The command is safe to paste though the file's name is not.
    assert!(page.contains("vmrescue repair &#39;"), "the path is quoted");
}

#[test]
fn a_report_replaces_no_image_and_a_file_only_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("d.vhdx");
    build(&image, Kind::VhdxDynamic).unwrap();
    let before = std::fs::read(&image).unwrap();
    for command in ["inspect", "diagnose"] {
        let output = vmrescue(&[command, image.to_str().unwrap(), "--html", image.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(3), "{command} refuses to write over the image");
    }
    assert!(std::fs::read(&image).unwrap() == before);
    let page = dir.path().join("r.html");
    for (more, code) in [(&[][..], 0), (&[], 2), (&["--force"], 0)] {
        let words = ["diagnose", image.to_str().unwrap(), "--html", page.to_str().unwrap()];
        let output = vmrescue(&[&words[..], more].concat());
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(
        std::fs::read_to_string(&page)
            .unwrap()
            .contains("Nothing found that keeps this machine from booting")
    );
}

/// Chromium without a network and without a window.
fn chromium(dir: &Path) -> Option<std::process::Command> {
    let mut command = tool("chromium")?;
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--virtual-time-budget=4000",
        "--enable-logging=stderr",
        "--v=0",
    ]);
    command.arg(format!("--user-data-dir={}", dir.join("profile").display()));
    Some(command)
}

/// A page that holds the report in a frame of that width, measures it, tries it, and writes what it saw into its title.
fn wrapped(page: &str, width: u32, script: &str) -> String {
    let quoted = page.replace('&', "&amp;").replace('"', "&quot;");
    format!(
        "<!doctype html><title>waiting</title><iframe style=\"width:{width}px;height:844px;border:0\" srcdoc=\"{quoted}\"></iframe>\
         <script>const f=document.querySelector('iframe');f.onload=()=>{{const d=f.contentDocument,w=f.contentWindow;\
         try{{{script}}}catch(e){{document.title='failed: '+e}}}}</script>"
    )
}

fn title(dir: &Path, html: &str) -> Option<String> {
    let file = dir.join("wrapped.html");
    std::fs::write(&file, html).unwrap();
    let output = run(chromium(dir)?
        .args(["--window-size=1400,1000", "--dump-dom"])
        .arg(format!("file://{}", file.display())));
    let dom = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors: Vec<String> = String::from_utf8_lossy(&output.stderr)
        .lines()
        .filter(|line| line.contains("CONSOLE"))
        .map(String::from)
        .collect();
    assert!(errors.is_empty(), "console: {errors:?}");
    let title = dom.split("<title>").nth(1).and_then(|rest| rest.split("</title>").next());
    Some(title.unwrap_or("no title").to_string())
}

#[test]
fn a_browser_shows_it_without_errors_on_phone_and_desk_and_tables_sort_and_filter() {
    let dir = tempfile::tempdir().unwrap();
    let (_, page) = report(dir.path());
    if tool("chromium").is_none() {
        skipped("chromium is not installed");
        return;
    }
    for width in [320, 390, 820, 1280] {
        // Everything is opened, so that what is folded is measured too.
        let script = "for(const e of d.querySelectorAll('details'))e.open=true;\
            const wide=[...d.body.querySelectorAll('*')].filter(e=>!e.closest('.scroll')&&!e.closest('svg')&&e.getBoundingClientRect().right>d.documentElement.clientWidth+1);\
            document.title='width '+d.documentElement.scrollWidth+' of '+d.documentElement.clientWidth+' wide '+wide.map(e=>e.className||e.tagName).join();";
        let seen = title(dir.path(), &wrapped(&page, width, script)).unwrap();
        // A scroll bar of 15 pixels stands beside the page.
        let inner = width - 15;
        assert_eq!(seen, format!("width {inner} of {inner} wide "), "at {width} pixels");
    }
    let script = "const t=d.querySelector('table[data-sort=packages]'),first=()=>t.tBodies[0].rows[0].cells[0].textContent;\
        const b=t.tHead.rows[0].cells[0].querySelector('button');b.click();const up=first();b.click();const down=first();\
        const i=t.parentElement.previousElementSibling.querySelector('input');i.value='kb5000007';i.dispatchEvent(new w.Event('input'));\
        const left=[...t.tBodies[0].rows].filter(r=>!r.hidden).length;\
        const copy=d.querySelectorAll('.command button').length;\
        document.title=[up,down,left,copy>0,d.title==='owned',d.querySelectorAll('img').length].join(' ');";
    let seen = title(dir.path(), &wrapped(&page, 1280, script)).unwrap();
    let words: Vec<&str> = seen.split(' ').collect();
    // The rollup package of the demo has no number and stands first.
    assert_eq!(words, ["", "KB5000059", "1", "true", "false", "0"], "{seen}");
}

#[test]
fn the_paper_form_is_short() {
    let dir = tempfile::tempdir().unwrap();
    let (page, _) = report(dir.path());
    let Some(mut browser) = chromium(dir.path()) else { return };
    let pdf = dir.path().join("report.pdf");
    run(browser.arg(format!("--print-to-pdf={}", pdf.display())).arg(format!("file://{}", page.display())));
    let bytes = std::fs::read(&pdf).unwrap();
    let mark = b"/Type /Page";
    let pages =
        bytes.windows(mark.len() + 1).filter(|w| w.starts_with(mark) && w[mark.len()] != b's').count();
    assert!((1..=6).contains(&pages), "{pages} pages");
}

/// A second installation whose registry is gone, on a page that was made for the first: it does not look as if it had nothing.
#[test]
fn an_installation_that_was_not_diagnosed_says_so() {
    if tool("sgdisk").is_none() {
        return skipped("sgdisk");
    }
    let dir = tempfile::tempdir().unwrap();
    let (image, page, junk) =
        (dir.path().join("d.raw"), dir.path().join("page.html"), dir.path().join("junk"));
    build(&image, Kind::Raw).unwrap();
    let mut bytes = std::fs::read(&image).unwrap();
    let (windows, second) = (WINDOWS, 256 * MIB);
    bytes.resize(second, 0);
    bytes.extend_from_within(windows.clone());
    bytes.resize(bytes.len() + 8 * MIB, 0);
    std::fs::write(&image, bytes).unwrap();
    let place = format!("4:{}:{}", second / 512, (second + windows.len()) / 512 - 1);
    run(tool("sgdisk").unwrap().args(["-e", "-n", &place, "-t", "4:0700"]).arg(&image));
    std::fs::write(&junk, [7; 9000]).unwrap();
    let words = |path: &Path| path.to_str().unwrap().to_string();
    let put =
        vmrescue(&["put", &words(&image), &words(&junk), r"#4:\Windows\System32\config\SYSTEM", "--yes"]);
    assert!(put.status.success(), "{put:?}");
    let done = vmrescue(&["diagnose", &words(&image), "--windows", "1", "--html", &words(&page)]);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(html.contains("not diagnosed") && html.contains("--windows 2"));
    assert!(html.contains("Could not be read: services and drivers"));
    assert_eq!(html.matches("was not diagnosed").count(), 1);
}
