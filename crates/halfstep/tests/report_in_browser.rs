//! The report as a browser shows it. Needs Debian's `chromium` and `chromium-driver`, so it runs
//! only when asked for: `cargo test --test report_in_browser -- --ignored`.

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use common::{Place, TINY};
use serde_json::{Value, json};

/// A browser behind WebDriver (W3C, <https://www.w3.org/TR/webdriver2/>).
struct Browser {
    driver: Child,
    session: String,
}

impl Browser {
    fn start() -> Browser {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver: install Debian's `chromium-driver`");
        let lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines.map_while(Result::ok).find_map(|line| {
            let (_, port) = line.split_once("started successfully on port ")?;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        let base = format!("http://127.0.0.1:{}", port.expect("chromedriver names its port"));
        let chrome =
            json!({ "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,900"] });
        let always = json!({
            "browserName": "chrome",
            "goog:chromeOptions": chrome,
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        });
        let started = post(&format!("{base}/session"), &json!({ "capabilities": { "alwaysMatch": always } }));
        let session = format!("{base}/session/{}", started["sessionId"].as_str().unwrap());
        Browser { driver, session }
    }

    fn post(&self, command: &str, body: Value) -> Value {
        post(&format!("{}/{command}", self.session), &body)
    }

    /// What a function body in the page returns.
    fn script(&self, body: &str) -> Value {
        self.post("execute/sync", json!({ "script": body, "args": [] }))
    }

    /// A command of the Chrome DevTools protocol.
    fn devtools(&self, command: &str, parameters: Value) {
        self.post("goog/cdp/execute", json!({ "cmd": command, "params": parameters }));
    }

    fn press(&self, key: &str) {
        let keys = json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        self.post("actions", json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": keys }] }));
    }

    fn log(&self, of: &str) -> Vec<Value> {
        self.post("se/log", json!({ "type": of })).as_array().unwrap().clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = ureq::delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn post(address: &str, body: &Value) -> Value {
    let mut answer =
        ureq::post(address).config().http_status_as_error(false).build().send_json(body).unwrap();
    let answer: Value = answer.body_mut().read_json().unwrap();
    assert!(answer["value"]["error"].is_null(), "{address}: {}", answer["value"]);
    answer["value"].clone()
}

/// What a browser's rules say about accessibility that can be computed: an alternative for every
/// picture, headings in order, names for what can be operated, tables with captions and headings,
/// and contrast (WCAG 2.2: 1.1.1, 1.3.1, 1.4.3, 2.4.6, 4.1.2).
const RULES: &str = r#"
const wrong = [];
const say = (rule, e) => wrong.push(rule + ": " + e.outerHTML.slice(0, 120));
for (const e of document.querySelectorAll("img")) if (!e.alt) say("no alternative", e);
for (const e of document.querySelectorAll("[role=img]")) if (!e.getAttribute("aria-label")) say("no label", e);
for (const e of document.querySelectorAll("svg")) if (!e.closest("[role=img]") || e.getAttribute("aria-hidden") != "true") say("a drawing on its own", e);
let level = 0;
for (const e of document.querySelectorAll("h1,h2,h3,h4,h5,h6")) {
  const now = +e.tagName[1];
  if (now > level + 1) say("a heading skips a level", e);
  if (!e.textContent.trim()) say("an empty heading", e);
  level = now;
}
if (document.querySelectorAll("h1").length != 1) wrong.push("not one h1");
for (const landmark of ["header", "main", "nav", "footer"]) if (document.querySelectorAll(landmark).length != 1) wrong.push("not one " + landmark);
if (document.documentElement.lang != "en" || !document.title) wrong.push("no language or title");
for (const e of document.querySelectorAll("table")) {
  if (!e.caption || !e.caption.textContent.trim()) say("a table without caption", e);
  for (const h of e.querySelectorAll("th")) if (!h.scope || !h.textContent.trim()) say("a table heading without scope or text", h);
  for (const r of e.querySelectorAll("tbody tr")) if (!r.querySelector("th")) say("a row without heading", r);
}
for (const e of document.querySelectorAll("a,summary")) if (!e.textContent.trim()) say("no name", e);
for (const e of document.querySelectorAll("a[href^='#']")) if (!document.querySelector(e.getAttribute("href"))) say("a link to nowhere", e);
const ids = [...document.querySelectorAll("[id]")].map(e => e.id);
if (new Set(ids).size != ids.length) wrong.push("an id twice");
for (const e of document.querySelectorAll("*")) {
  const o = getComputedStyle(e).overflowX;
  if ((o == "auto" || o == "scroll") && e.scrollWidth > e.clientWidth && e.tabIndex < 0) say("scrolls, but not by keyboard", e);
}
const numbers = c => (c.match(/[\d.]+/g) || []).map(Number);
const channel = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const luminance = c => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
const ground = e => {
  for (; e; e = e.parentElement) {
    const c = numbers(getComputedStyle(e).backgroundColor);
    if (c.length == 3 || c[3] > 0) return c;
  }
  return [255, 255, 255];
};
let texts = 0;
for (const e of document.querySelectorAll("body *")) {
  const own = [...e.childNodes].some(n => n.nodeType == 3 && n.textContent.trim());
  if (!own || !e.checkVisibility()) continue;
  const style = getComputedStyle(e), svg = e instanceof SVGElement;
  const [a, b] = [luminance(numbers(svg ? style.fill : style.color)), luminance(ground(e))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), size = parseFloat(style.fontSize);
  const large = size >= 24 || (size >= 18.66 && +style.fontWeight >= 700);
  if (ratio < (large ? 3 : 4.5)) say("contrast " + ratio.toFixed(2), e);
  texts += 1;
}
return { wrong, texts, ground: numbers(getComputedStyle(document.body).backgroundColor) };
"#;

/// What has the focus: its position among what can have it, its name, and whether it can be seen to
/// have it.
const FOCUS: &str = r#"
const e = document.activeElement;
if (!e || e == document.body || e == document.documentElement) return null;
const all = [...document.querySelectorAll("a,summary,[tabindex='0']")].filter(e => e.checkVisibility());
const style = getComputedStyle(e);
return { at: all.indexOf(e), of: all.length, name: e.getAttribute("aria-label") || e.textContent.trim(), tag: e.tagName,
  seen: style.outlineStyle != "none" && parseFloat(style.outlineWidth) >= 2 };
"#;

#[test]
#[ignore = "needs chromium and chromedriver"]
fn the_report_works_for_everyone() {
    let place = Place::new();
    place.write("recipe.toml", TINY.replace("seeds = 2", "seeds = 3"));
    place.compare(&["recipe.toml", "--out", "run"]);
    let browser = Browser::start();
    browser.post("url", json!({ "url": format!("file://{}", place.path("run/report.html").display()) }));
    assert_eq!(
        browser.script("return document.querySelectorAll('img').length > 0"),
        true,
        "pictures of mistakes"
    );

    // Light, dark and on paper.
    let mut grounds = Vec::new();
    for (scheme, media) in [("light", "screen"), ("dark", "screen"), ("dark", "print")] {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        browser.devtools("Emulation.setEmulatedMedia", json!({ "media": media, "features": features }));
        let found = browser.script(RULES);
        assert_eq!(found["wrong"], json!([]), "{scheme} {media}");
        assert!(found["texts"].as_u64().unwrap() > 100, "{found}");
        grounds.push(found["ground"].clone());
    }
    assert!(
        grounds[0] != grounds[1] && grounds[0] == grounds[2],
        "dark is dark, paper is white: {grounds:?}"
    );
    let on_paper = browser.script(
        "return { nav: document.querySelector('nav').checkVisibility(), \
         closed: [...document.querySelectorAll('details p, details td')].every(e => e.checkVisibility({ contentVisibilityAuto: true })) }",
    );
    assert_eq!(
        on_paper,
        json!({ "nav": false, "closed": true }),
        "paper has no links and shows what is folded"
    );
    let pdf = browser.post("print", json!({}));
    assert!(pdf.as_str().unwrap().starts_with("JVBER"), "a PDF file in base64");
    browser.devtools("Emulation.setEmulatedMedia", json!({ "media": "", "features": [] }));

    // As narrow as a telephone, nothing sticks out; wide tables scroll in themselves.
    let narrow = json!({ "width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": false });
    browser.devtools("Emulation.setDeviceMetricsOverride", narrow);
    let fits = "return innerWidth == 390 && document.documentElement.scrollWidth <= innerWidth";
    assert_eq!(browser.script(fits), true, "the page itself scrolls sideways");
    assert_eq!(browser.script(RULES)["wrong"], json!([]), "narrow");
    browser.devtools("Emulation.clearDeviceMetricsOverride", json!({}));

    // With the keyboard alone: everything in order, each to be seen, and folded parts open.
    const TAB: &str = "\u{e004}";
    const ENTER: &str = "\u{e007}";
    browser.script("window.scrollTo(0, 0); document.activeElement.blur()");
    let (mut expected, mut opened) = (0, 0);
    loop {
        browser.press(TAB);
        let focus = browser.script(FOCUS);
        if focus.is_null() {
            break;
        }
        assert_eq!((&focus["at"], &focus["seen"]), (&json!(expected), &json!(true)), "{focus}");
        if expected == 0 {
            assert_eq!(focus["name"], "Skip to the results");
        }
        if focus["tag"] == "SUMMARY" && opened == 0 {
            browser.press(ENTER);
            assert_eq!(browser.script("return document.activeElement.parentElement.open"), true);
            // And closed again, so that the order stays.
            browser.press(ENTER);
            opened += 1;
        }
        expected += 1;
        if expected == focus["of"].as_u64().unwrap() {
            break;
        }
    }
    assert!(expected > 15 && opened == 1, "{expected} stops");

    // No complaint, and nothing fetched but the file itself and what is inside it.
    let complaints = browser.log("browser");
    assert!(complaints.is_empty(), "{complaints:?}");
    let fetched: Vec<String> = browser
        .log("performance")
        .iter()
        .filter_map(|entry| {
            let message: Value = serde_json::from_str(entry["message"].as_str()?).ok()?;
            let message = &message["message"];
            let is_request = message["method"] == "Network.requestWillBeSent";
            is_request.then(|| message["params"]["request"]["url"].as_str().unwrap_or_default().to_string())
        })
        .collect();
    let inside = |url: &String| {
        url.starts_with("file://") && url.ends_with("/report.html") || url.starts_with("data:")
    };
    assert!(!fetched.is_empty() && fetched.iter().all(inside), "{fetched:?}");
}
