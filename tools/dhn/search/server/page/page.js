// The page's state is its address: ?key= or ?code= (a query), top, radius, label, unique (options), seed (which images
// of the index are shown without a query). Every change is an entry of the browser's history.

const $ = (id) => document.getElementById(id);
const form = $("options");
const OPTIONS = ["top", "radius", "label", "unique"];
const KINDS = ["image/jpeg", "image/png", "image/webp"];
const SMALL = 64; // pixels: a picture up to this side is shown by whole squares
const EAGER = 60; // pictures that are loaded before they come into sight
let about = {};
let request = new AbortController();

const bits = (number) => `${number} ${number === 1 ? "bit" : "bits"}`;
const count = (number) => number.toLocaleString("en");
const imageOf = (key) => `/api/items/${encodeURIComponent(key)}/image`;
const current = () => new URLSearchParams(location.search);

/** A new element: attributes, then children; text is never read as HTML. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value != null) element.setAttribute(name, value);
  element.append(...children.filter((child) => child != null));
  return element;
}

/** A picture in a square box; a small one by whole squares, or its pixels would blur. */
function picture(source, text, eager = true) {
  const image = make("img", { alt: text, decoding: "async", loading: eager ? null : "lazy" });
  image.addEventListener("load", () => scale(image));
  image.addEventListener("error", () => image.parentElement?.classList.add("broken"));
  image.src = source;
  return image;
}

function scale(image) {
  const longest = Math.max(image.naturalWidth, image.naturalHeight);
  if (longest > SMALL || !image.parentElement) return;
  const side = parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--side"));
  image.classList.add("small");
  image.style.width = `${image.naturalWidth * Math.max(1, Math.floor(side / longest))}px`;
}

/** An answer of the API; waits and asks again where the server is full. */
async function ask(address, options = {}, tries = 3) {
  const answer = await fetch(address, { ...options, signal: request.signal });
  if (answer.status === 503 && tries > 1) {
    await new Promise((done) => setTimeout(done, 1000 * (Number(answer.headers.get("retry-after")) || 1)));
    return ask(address, options, tries - 1);
  }
  const body = await answer.json().catch(() => ({ error: `the server answered ${answer.status}` }));
  if (!answer.ok) throw new Error(body.error);
  return body;
}

/** The address with these parameters changed; null removes one. */
function address(changes, path = "/") {
  const parameters = current();
  for (const [name, value] of Object.entries(changes)) {
    if (value == null || value === "") parameters.delete(name);
    else parameters.set(name, value);
  }
  const text = parameters.toString().replaceAll("%2C", ",");
  return text ? `${path}?${text}` : path;
}

function go(changes, state = null) {
  const next = address(changes);
  if (next === location.pathname + location.search) return show();
  history.pushState(state, "", next);
  return show();
}

/** Do something that asks the server: what was asked before is given up, and an error is shown. */
async function busy(task) {
  request.abort();
  const own = (request = new AbortController());
  $("error").hidden = true;
  $("results").classList.add("busy");
  try {
    await task();
  } catch (error) {
    if (error.name === "AbortError") return;
    $("error").textContent = error instanceof TypeError ? "The server does not answer." : error.message;
    $("error").hidden = false;
  } finally {
    if (own === request) $("results").classList.remove("busy");
  }
}

/** Show what the address says. */
function show() {
  const parameters = current();
  for (const name of ["top", "radius", "label", "key"]) form[name].value = parameters.get(name) ?? (name === "top" ? 20 : "");
  form.unique.checked = parameters.get("unique") === "1";
  return busy(async () => {
    if (parameters.has("key") || parameters.has("code")) {
      parameters.delete("seed");
      showResults(await ask(`/api/search?${parameters}`));
    } else {
      const chosen = new URLSearchParams({ count: 24, seed: parameters.get("seed") ?? 0 });
      if (parameters.get("label")) chosen.set("label", parameters.get("label"));
      showItems((await ask(`/api/items?${chosen}`)).items);
    }
  });
}

/** Search by a file: the server answers with its code, which is what the address keeps. */
async function upload(file) {
  if (!file) return;
  await busy(async () => {
    if (file.type && !KINDS.includes(file.type)) throw new Error(`${file.name}: expected a JPEG, PNG or WebP picture, found ${file.type}.`);
    const body = new FormData();
    body.append("image", file, file.name || "picture");
    for (const name of OPTIONS) if (current().has(name)) body.append(name, current().get(name));
    const answer = await ask("/api/search", { method: "POST", body });
    const state = { preview: await thumbnail(file).catch(() => null), name: file.name || "pasted picture" };
    history.pushState(state, "", address({ code: answer.query.code.join(","), key: null, seed: null }));
    form.key.value = "";
    showResults(answer);
  });
}

/** A picture as a data URL of at most 256 pixels: the history keeps it, the server does not. */
async function thumbnail(file) {
  const bitmap = await createImageBitmap(file);
  const part = Math.min(1, 256 / Math.max(bitmap.width, bitmap.height));
  const canvas = make("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * part));
  canvas.height = Math.max(1, Math.round(bitmap.height * part));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL(part < 1 ? "image/jpeg" : "image/png");
}

function showQuery(query) {
  const frame = $("preview");
  frame.classList.toggle("full", query != null);
  frame.classList.remove("broken");
  if (!query) {
    frame.replaceChildren(make("span", { class: "faint" }, "no picture yet"));
    $("query").textContent = about.encoder
      ? "Drop a picture here, paste one, or click one below."
      : "Click an image below: this index names no net that could take pictures.";
    return;
  }
  const source = query.key != null ? imageOf(query.key) : history.state?.preview;
  const name = query.key ?? history.state?.name ?? "a code";
  frame.replaceChildren(source ? picture(source, `query: ${name}`) : make("span", { class: "faint" }, "a code, without its picture"));
  $("query").replaceChildren(make("b", {}, "Query "), name, query.labels ? ` (${query.labels.join(", ")})` : "");
}

/** Whether a result shares a label with the query; null where one of them has none that is known. */
const isHit = (query, result) => (query.labels && result.labels ? result.labels.some((label) => query.labels.includes(label)) : null);

function showResults({ query, results }) {
  showQuery(query);
  $("heading").textContent = results.length ? `${count(results.length)} nearest` : "Nothing found";
  const others = results.filter((result) => result.key !== query.key);
  const known = others.map((result) => isHit(query, result)).filter((hit) => hit !== null);
  const hits = known.filter(Boolean).length;
  const far = results.at(-1)?.distance;
  const parts = [];
  if (known.length) parts.push(`${hits} of ${known.length} right: precision@${known.length} ${(hits / known.length).toFixed(3)}`);
  if (known.length && others.length < results.length) parts.push("the query itself is not counted");
  if (results.length) parts.push(`Hamming distance ${results[0].distance} to ${far} of ${about.bits} bits`);
  else parts.push("No image is within this radius and has this label.");
  $("score").textContent = parts.join(" · ");
  showPrecisions(known);
  const save = (text, format) => make("a", { class: "button", href: address({ format, seed: null }, "/api/search"), download: `results.${format}` }, text);
  $("tools").replaceChildren(save("CSV", "csv"), save("JSON", "json"), make("a", { class: "button", href: address({ key: null, code: null }) }, "New query"));
  $("grid").replaceChildren(
    ...results.map((result, place) => {
      const own = result.key === query.key;
      const hit = own ? null : isHit(query, result);
      const words = [`rank ${result.rank}`, `distance ${result.distance}`, result.labels?.join(", "), { true: "right", false: "wrong" }[hit], own && "the query itself"];
      const mark = make("span", { class: "mark" }, { true: "✓", false: "✗" }[hit] ?? (own ? "query" : ""));
      const more = `${bits(result.distance)} · ${result.key}`;
      const title = `rank ${result.rank}, similarity ${result.similarity.toFixed(3)}`;
      return card(result, place, words.filter(Boolean).join(", "), [mark, more, title], { true: "hit", false: "miss" }[hit]);
    }),
  );
}

/** One cell a rank, right or wrong, with the precision up to it. */
function showPrecisions(known) {
  let hits = 0;
  $("strip").replaceChildren(
    ...known.map((hit, place) => {
      hits += hit;
      return make("span", { class: hit ? "hit" : "miss", title: `precision@${place + 1} ${(hits / (place + 1)).toFixed(3)}` });
    }),
  );
}

function showItems(items) {
  showQuery(null);
  const label = current().get("label");
  $("heading").textContent = label ? `Images of the index: ${label}` : "Images of the index";
  $("score").textContent = "Click one to search by it.";
  showPrecisions([]);
  const seed = Number(current().get("seed") ?? 0);
  $("tools").replaceChildren(make("a", { class: "button", href: address({ seed: seed + 1 }) }, "Others"));
  $("grid").replaceChildren(
    ...items.map((item, place) => card(item, place, item.labels?.join(", ") ?? "", [null, item.key, null])),
  );
}

/** An image of the index as a link that searches by it. words: what is read out; mark, more, title: what is seen. */
function card(item, place, words, [mark, more, title], kind = null) {
  const box = make("div", { class: "picture" });
  if (about.pictures) box.append(picture(imageOf(item.key), "", place < EAGER));
  const link = make(
    "a",
    { href: address({ key: item.key, code: null, seed: null }), class: kind, "aria-label": `${item.key}: ${words}`, title: [item.key, item.path, title].filter(Boolean).join("\n") },
    box,
    make("div", { class: "line" }, make("span", {}, item.labels?.join(", ") ?? ""), mark),
    make("div", { class: "key" }, more),
  );
  return make("li", {}, link);
}

function showAbout() {
  const { score } = about;
  const map = score && `${score.map_expected.toFixed(4)} (${score.map_low.toFixed(4)} to ${score.map_high.toFixed(4)}, as ties are ordered)`;
  const set = [about.dataset, about.form && `(${about.form})`].filter(Boolean).join(" ");
  document.title = about.dataset ? `Search ${about.dataset}` : "Search by picture";
  $("home").textContent = document.title;
  $("summary").textContent = [set, `${count(about.count)} images`, `${about.bits} bits`, map && `MAP ${map}`].filter(Boolean).join(" · ");
  const facts = {
    "Data set": set,
    Split: about.split,
    Images: count(about.count),
    "Distinct codes": count(about.distinct),
    Bits: about.bits,
    Run: about.run,
    "SHA-256 of the weights": about.weights_sha256,
    MAP: score && `${map}; protocol ${score.protocol}, R ${count(score.R)}, expected over the orders of ties`,
    "To know": score?.caveats.join("; "),
    Order: "Hamming distance, then the greater inner product of the real-valued codes, then the key",
    Report: about.report && make("a", { href: "/report" }, "scores, curves and codes of this run"),
  };
  $("facts").replaceChildren(
    ...Object.entries(facts).filter(([, value]) => value).flatMap(([term, value]) => [make("dt", {}, term), make("dd", {}, value instanceof Node ? value : String(value))]),
  );
  form.label.append(...about.label_names.map((label) => make("option", { value: label }, label)));
  $("labels").hidden = about.label_names.length === 0;
  form.radius.max = about.bits;
  form.top.max = about.top;
  $("uploads").hidden = $("kinds").hidden = !about.encoder;
  $("paste").hidden = !navigator.clipboard?.read;
}

/** A link to another state of this page is followed without loading the page again. */
document.addEventListener("click", (event) => {
  const link = event.target.closest("a");
  if (!link || link.download || link.pathname !== "/" || link.hash || event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  if (link.href !== location.href) history.pushState(null, "", link.href);
  const focused = document.activeElement === link;
  show().then(() => {
    scrollTo(0, 0);
    if (focused) $("results").focus({ preventScroll: true });
  });
});
window.addEventListener("popstate", show);

form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("change", (event) => {
  if (!form.reportValidity()) return;
  const { name, value, checked } = event.target;
  if (name === "key") go({ key: value.trim(), code: null, seed: null });
  else if (name === "unique") go({ unique: checked ? "1" : null }, history.state);
  else go({ [name]: name === "top" && value === "20" ? null : value }, history.state);
});

$("file").addEventListener("change", (event) => {
  upload(event.target.files[0]);
  event.target.value = ""; // the same file again is a change too
});
$("paste").addEventListener("click", () =>
  busy(async () => {
    const items = await navigator.clipboard.read().catch(() => []);
    const item = items.find((each) => each.types.some((type) => KINDS.includes(type)));
    if (!item) throw new Error("The clipboard holds no picture.");
    const type = item.types.find((each) => KINDS.includes(each));
    await upload(new File([await item.getType(type)], "pasted picture", { type }));
  }),
);
document.addEventListener("paste", (event) => {
  const file = event.clipboardData?.files[0];
  if (file && about.encoder) upload(file);
});
for (const type of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(type, (event) => {
    event.preventDefault();
    $("panel").classList.toggle("over", about.encoder && (type === "dragenter" || type === "dragover"));
    if (type === "drop" && about.encoder) upload(event.dataTransfer.files[0]);
  });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches("input, select");
  const links = [...document.querySelectorAll("#grid a")];
  const place = links.indexOf(document.activeElement);
  if (event.key === "/" && !typing) form.key.focus();
  else if (event.key === "o" && !typing && about.encoder) $("file").click();
  else if (event.key.startsWith("Arrow") && links.length && !typing) {
    const top = links[0].offsetTop;
    const columns = links.filter((link) => link.offsetTop === top).length;
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    if (place < 0 && step < 0) return;
    const next = links[place < 0 ? 0 : place + step];
    if (!next) return;
    next.focus();
  } else return;
  event.preventDefault();
});
matchMedia("(max-width: 44rem)").addEventListener("change", () => document.querySelectorAll("img.small").forEach(scale));

await busy(async () => {
  about = await ask("/api/about");
  showAbout();
});
if (about.bits) await show();
