//! The few lines of JavaScript of the report: tables that sort and filter, commands that copy. Without them the report says the same.

use sha2::{Digest, Sha256};

/// The script. Its hash stands in the page's content security policy, so that no other script runs.
pub(super) const SCRIPT: &str = r#"
"use strict";
const collator = new Intl.Collator("en", {numeric: true});
const make = (tag, text) => { const e = document.createElement(tag); e.textContent = text; return e; };
for (const table of document.querySelectorAll("table[data-sort]")) {
  const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
  const key = (row, i) => row.cells[i].dataset.v ?? row.cells[i].textContent;
  heads.forEach((head, i) => {
    const button = make("button", head.textContent);
    button.type = "button";
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach(h => h.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const sorted = rows.slice().sort((a, b) => collator.compare(key(a, i), key(b, i)) * (down ? -1 : 1));
      body.append(...sorted);
    });
  });
  const tools = make("div", ""), input = make("input", ""), count = make("span", "");
  tools.className = "tools"; count.className = "soft"; input.type = "search"; input.placeholder = "Filter";
  input.setAttribute("aria-label", "Filter " + table.dataset.sort);
  const show = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let seen = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase(), fits = words.every(w => text.includes(w));
      row.hidden = !fits;
      seen += fits;
    }
    count.textContent = seen + " of " + rows.length;
  };
  input.addEventListener("input", show);
  show();
  tools.append(input, count);
  table.parentElement.before(tools);
}
for (const command of document.querySelectorAll(".command")) {
  const button = make("button", "Copy");
  button.type = "button";
  button.addEventListener("click", async () => {
    const pre = command.querySelector("pre");
    try { await navigator.clipboard.writeText(pre.textContent); button.textContent = "Copied"; }
    catch { getSelection().selectAllChildren(pre); button.textContent = "Selected"; }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  command.append(button);
}
"#;

/// The script's hash as a content security policy wants it.
pub(super) fn hash() -> String {
    format!("sha256-{}", base64(&Sha256::digest(SCRIPT)))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let number =
            chunk.iter().fold(0u32, |number, byte| number << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = DIGITS[(number >> (18 - 6 * i) & 0x3f) as usize];
            text.push(if i <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_is_that_of_rfc_4648() {
        let pairs = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (plain, coded) in pairs {
            assert_eq!(super::base64(plain.as_bytes()), coded);
        }
    }
}
