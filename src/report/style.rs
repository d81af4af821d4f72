//! The look of HTML reports: one sheet for light and dark, for phones, desks and paper. Shared by the report of one disk and that of a batch.

/// Colours and type, and the parts that all reports have.
pub const STYLE: &str = r#"
:root{color-scheme:light dark;--paper:#fcfcfa;--card:#fff;--ink:#1d232a;--soft:#5c6672;--line:#e2e5e9;--wash:#f2f4f6;
--bad:#a8201a;--bad-wash:#fbeceb;--find:#855300;--find-wash:#fbf3e2;--good:#17693a;--good-wash:#e9f5ee;--link:#1f5fa8;
--system:#6d5bb5;--windows:#2f6fb4;--recovery:#2c8a7c;--reserved:#98a1ab;--locked:#a8201a;--unreadable:#c07a1a;--data:#4f8f46;--gap:#e3e6ea;
--mono:ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace}
@media(prefers-color-scheme:dark){:root{--paper:#14171b;--card:#1b1f25;--ink:#dde2e8;--soft:#98a3af;--line:#2c333b;--wash:#20262d;
--bad:#ff9389;--bad-wash:#321b1b;--find:#f2bd63;--find-wash:#2e2617;--good:#7fd6a0;--good-wash:#172a1f;--link:#8ab8f2;
--system:#9d8ce6;--windows:#5b9be0;--recovery:#4fb5a6;--reserved:#6e7883;--locked:#e0645b;--unreadable:#d79a45;--data:#74b56b;--gap:#2a3037}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0 auto;max-width:74rem;padding:1.5rem clamp(1rem,4vw,2.5rem) 3rem;background:var(--paper);color:var(--ink);
font:1rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Liberation Sans",sans-serif;font-variant-numeric:tabular-nums}
h1{font-size:clamp(1.6rem,5vw,2.35rem);line-height:1.15;letter-spacing:-.015em;font-weight:650;margin:.2rem 0 .6rem;text-wrap:balance}
h2{font-size:1.2rem;font-weight:650;letter-spacing:-.005em;margin:2.75rem 0 .9rem}
h3{font-size:1rem;font-weight:650;margin:0 0 .5rem}
p{margin:.4rem 0}
a{color:var(--link)}
code,pre,.mono{font-family:var(--mono);font-size:.86em}
code,td,dd,li,.mono{overflow-wrap:anywhere}
.soft{color:var(--soft)}.small{font-size:.86rem}
.bad{color:var(--bad)}.find{color:var(--find)}.good{color:var(--good)}
table{border-collapse:collapse;width:100%;font-size:.9rem}
th,td{text-align:left;vertical-align:top;padding:.4rem .9rem .4rem 0;border-bottom:1px solid var(--line)}
th{font-weight:600;color:var(--soft);white-space:nowrap}
td.number,th.number{text-align:right;white-space:nowrap}
.scroll{overflow-x:auto;-webkit-overflow-scrolling:touch}
"#;

/// What only the report of one disk has.
pub(super) const DISK_STYLE: &str = r#"
.verdict{border-left:.4rem solid var(--soft);padding:.2rem 0 .2rem 1.1rem;margin-bottom:1.2rem}
.verdict.bad{border-color:var(--bad)}.verdict.find{border-color:var(--find)}.verdict.good{border-color:var(--good)}
.verdict h1{color:inherit}.verdict .lead{font-size:1.08rem;color:var(--ink);max-width:46rem}
.kicker{font-size:.8rem;letter-spacing:.06em;text-transform:uppercase;color:var(--soft)}
.keys{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.2rem,1fr));gap:.9rem 1.2rem;margin:1.4rem 0 0}
.keys dt{font-size:.8rem;color:var(--soft)}.keys dd{margin:0;font-weight:550}
nav{display:flex;flex-wrap:wrap;gap:.35rem 1.2rem;margin:1.6rem 0 0;padding:.7rem 0;border-top:1px solid var(--line);border-bottom:1px solid var(--line);font-size:.92rem}
nav a{text-decoration:none}nav a:hover{text-decoration:underline}
.finding{background:var(--card);border:1px solid var(--line);border-left:.3rem solid var(--soft);border-radius:.4rem;padding:1rem 1.2rem;margin:0 0 .9rem}
.more{margin:0 0 .9rem}.more>summary{margin-bottom:.5rem}.finding.critical{border-left-color:var(--bad)}.finding.warning{border-left-color:var(--find)}
.finding h3{font-size:1.08rem;margin:.15rem 0 .4rem}
.finding ul{margin:.3rem 0 .6rem;padding-left:1.1rem}
.tag{display:inline-block;font-size:.76rem;font-weight:600;letter-spacing:.02em;border-radius:1rem;padding:.1rem .6rem;background:var(--wash);color:var(--soft);vertical-align:.1em}
.critical>.tag,.tag.bad{background:var(--bad-wash);color:var(--bad)}.warning>.tag,.tag.find{background:var(--find-wash);color:var(--find)}.tag.good{background:var(--good-wash);color:var(--good)}
.label{font-size:.8rem;color:var(--soft);margin:.6rem 0 .15rem}
.command{display:flex;gap:.5rem;align-items:flex-start}
pre{margin:0;flex:1;min-width:0;background:var(--wash);border-radius:.35rem;padding:.55rem .75rem;white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.45}
button{font:inherit;font-size:.84rem;color:var(--link);background:none;border:1px solid var(--line);border-radius:.35rem;padding:.4rem .7rem;cursor:pointer}
button:hover{border-color:var(--link)}
.map svg,.plot svg{display:block;width:100%}
.map svg{height:3.6rem;border-radius:.35rem}
.scale{position:relative;height:1.5rem;font-size:.78rem;color:var(--soft);overflow:hidden}
.scale span{position:absolute;top:.25rem;transform:translateX(-50%);white-space:nowrap}
.scale span:first-child{transform:none}.scale span:last-child{transform:translateX(-100%)}
.swatch{display:inline-block;width:.75rem;height:.75rem;border-radius:.18rem;margin-right:.5rem;vertical-align:-.05em}
.fill-system{fill:var(--system);background:var(--system)}.fill-windows{fill:var(--windows);background:var(--windows)}
.fill-recovery{fill:var(--recovery);background:var(--recovery)}.fill-reserved{fill:var(--reserved);background:var(--reserved)}
.fill-locked{fill:var(--locked);background:var(--locked)}.fill-unreadable{fill:var(--unreadable);background:var(--unreadable)}
.fill-data{fill:var(--data);background:var(--data)}.fill-unpartitioned{fill:var(--gap);background:var(--gap)}
.free{opacity:.32}
.plot{background:var(--card);border:1px solid var(--line);border-radius:.4rem;padding:.9rem 1rem .5rem}
.plot svg{height:9.5rem}
.plot .update{fill:var(--windows)}.plot .crash{fill:var(--bad)}.plot .start{fill:var(--soft)}.plot .mark{fill:var(--good)}.plot .rule{fill:var(--line)}
.legend{display:flex;flex-wrap:wrap;gap:.3rem 1.3rem;font-size:.84rem;color:var(--soft);margin:.4rem 0 .2rem}
.fill-update{background:var(--windows)}.fill-crash{background:var(--bad)}.fill-start{background:var(--soft)}.fill-mark{background:var(--good)}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(22rem,100%),1fr));gap:1rem}
.card{background:var(--card);border:1px solid var(--line);border-radius:.4rem;padding:1rem 1.2rem;min-width:0}
.card.wide{grid-column:1/-1}
.card dl{display:grid;grid-template-columns:fit-content(48%) minmax(5.5rem,1fr);gap:.28rem 1rem;margin:0;font-size:.92rem}
.card dt{color:var(--soft)}.card dd{margin:0;min-width:0}
.card ul{margin:0;padding-left:1.1rem;font-size:.92rem}
.card .scroll{margin-top:.7rem}
.absent{color:var(--soft)}
details{margin:.6rem 0}summary{cursor:pointer;color:var(--link);font-weight:550;padding:.3rem 0}
.tools{display:flex;flex-wrap:wrap;gap:.6rem;align-items:center;margin:.5rem 0}
input[type=search]{font:inherit;font-size:.92rem;color:inherit;background:var(--card);border:1px solid var(--line);border-radius:.35rem;padding:.4rem .7rem;width:min(20rem,100%)}
th button{border:0;padding:0;font:inherit;font-weight:600;color:inherit;text-align:left}
th button::after{content:"";display:inline-block;width:1em;text-align:center;opacity:.55}
th[aria-sort=ascending] button::after{content:"\2191"}th[aria-sort=descending] button::after{content:"\2193"}
footer{margin-top:3rem;padding-top:1rem;border-top:1px solid var(--line);font-size:.84rem;color:var(--soft)}
footer dl{display:grid;grid-template-columns:auto 1fr;gap:.2rem 1rem;margin:.5rem 0 0}footer dd{margin:0;min-width:0;overflow-wrap:anywhere}
:focus-visible{outline:2px solid var(--link);outline-offset:2px}
@media(max-width:40rem){.scale span:nth-child(even){display:none}.command{flex-direction:column}pre{width:100%}
th,td{padding-right:.7rem}.card,.finding{padding:.9rem 1rem}.scroll td{min-width:6rem}}
@media print{:root{--paper:#fff;--card:#fff;--ink:#000;--soft:#444;--line:#bbb;--wash:#f1f1f1;--bad:#a8201a;--bad-wash:#fff;--find:#7a4b00;--find-wash:#fff;--good:#17693a;--good-wash:#fff;--link:#000;--gap:#e3e6ea}
body{max-width:none;padding:0;font-size:10pt}nav,button,.tools{display:none}
.finding,.card,.plot,.map{break-inside:avoid}.card.wide{break-inside:auto}tr{break-inside:avoid}h2{break-after:avoid}thead{display:table-header-group}
.scroll{overflow:visible}table{font-size:8.5pt}svg,.swatch,pre,.tag{-webkit-print-color-adjust:exact;print-color-adjust:exact}@page{margin:16mm 14mm}}
"#;
