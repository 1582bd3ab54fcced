"use strict";
// The protocol switch of the map, the table of everything, and the filters, which sections follow.
// Text goes in as text, never as HTML.

const maps = [...document.querySelectorAll("[data-map]")];
const switches = [...document.querySelectorAll("[data-switch] input")]; // one a map, in the same order
const showMap = () => maps.forEach((map, index) => { map.hidden = !switches[index].checked; });
for (const input of switches) input.addEventListener("change", showMap);
showMap();

// Inside Snakemake's report this page is a data URI, and no file lies beside it: a tile leads to its cell in this page, and
// other links to files are text.
const isAlone = !["file:", "http:", "https:"].includes(location.protocol);
if (isAlone) {
  for (const link of document.querySelectorAll("a[href]")) {
    if (/^(#|[a-z]+:)/.test(link.getAttribute("href"))) continue;
    if (link.dataset.inside) link.setAttribute("href", link.dataset.inside);
    else link.replaceWith(...link.childNodes);
  }
}

// A link to a closed cell opens it.
function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) target.open = true;
}
addEventListener("hashchange", reveal);
reveal();

const get = (id) => document.getElementById(id);

function make(tag, text, attributes = {}) {
  const element = document.createElement(tag);
  element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

// --- the rows: what a dataset and a backbone are stands once in the page, and is joined to each row here ---

const page = JSON.parse(get("everything").textContent);
const columns = [...page.columns, "modality", "task", "family"];
const place = Object.fromEntries(columns.map((name, index) => [name, index]));
const rows = page.rows.map((row) => {
  const { modality, task } = page.datasets[row[place.dataset]];
  return [...row, modality, task, page.families[row[place.backbone]]];
});
const texts = rows.map((row) => row.join(" ").toLowerCase());
const numeric = new Set(columns.filter((name) => rows.some((row) => typeof row[place[name]] === "number")));
const byName = new Intl.Collator(undefined, { numeric: true }).compare; // "few-shot 2" before "few-shot 16"

// --- what is shown ---

const STEP = 200; // rows at first, and more with every "Show more"
const PRIMARY = "primary metric"; // that of the task
// The filters, and what they are set to at first.
const FIRST = { modality: "", task: "", dataset: "", family: "", protocol: "", metric: PRIMARY, part: "test", class: "macro" };
const IN_PRINT = new Set(["dataset", "backbone", "protocol", "metric", "value", "low", "n_patients"]);
const HIDDEN = new Set(["modality", "task", "family", "n_samples", "n_classes", "n_fits", "seed_low", "seed_high", "trained_parameters", "trained_share", "best_epoch", "seed", "key"]);
if (!rows.some((row) => row[place.n_fits] > 1)) HIDDEN.add("seed_sd");
const DECIMALS = { value: 3, seed_sd: 4, seed_low: 3, seed_high: 3, seconds: 1, peak_gb: 2, trained_share: 4 };
const COLUMNS = ["dataset", "modality", "task", "backbone", "family"];
COLUMNS.push(...page.columns.filter((name) => !COLUMNS.includes(name) && name !== "high")); // low shows both
const state = { chosen: { ...FIRST }, sort: null, down: false, most: STEP, columns: new Set(COLUMNS.filter((name) => !HIDDEN.has(name))) };

const title = (name) => name === "low" ? "95 % interval" : name.replaceAll("_", " ");
const isIn = (dataset) => ["modality", "task", "dataset"].every((name) =>
  !state.chosen[name] || state.chosen[name] === (name === "dataset" ? dataset : page.datasets[dataset][name]));

function fits(row, name) {
  const wanted = state.chosen[name], value = row[place[name]];
  return !wanted || value === (wanted === PRIMARY ? page.datasets[row[place.dataset]].primary : wanted);
}

function matching() {
  const words = get("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const names = Object.keys(FIRST);
  const kept = rows.filter((row, index) =>
    names.every((name) => fits(row, name)) && words.every((word) => texts[index].includes(word)));
  if (state.sort === null) return kept;
  const at = place[state.sort], sign = state.down ? -1 : 1, isNumber = numeric.has(state.sort);
  return kept.sort((a, b) => {
    if (a[at] === null || b[at] === null) return (a[at] === null) - (b[at] === null); // missing last, either way
    return sign * (isNumber ? a[at] - b[at] : byName(a[at], b[at]));
  });
}

function written(row, name) {
  const value = row[place[name]];
  if (value === null) return "–";
  if (name === "low") return `[${value.toFixed(3)}, ${row[place.high].toFixed(3)}]`;
  return name in DECIMALS ? value.toFixed(DECIMALS[name]) : String(value);
}

function line(row, names) {
  const element = document.createElement("tr");
  for (const name of names) {
    const missing = row[place[name]] === null ? { title: row[place.note] || "not measured" } : {};
    const cell = make("td", "", { ...missing, ...(numeric.has(name) ? { class: "num" } : {}) });
    const href = name === "protocol" && !isAlone && page.pages[row[place.dataset]]?.[row[place.backbone]]?.[row[place.protocol]];
    cell.append(href ? make("a", written(row, name), { href }) : written(row, name));
    element.append(cell);
  }
  return element;
}

function header(name) {
  const sorted = name !== state.sort ? "none" : state.down ? "descending" : "ascending";
  const element = make("th", "", { scope: "col", "aria-sort": sorted, ...(numeric.has(name) ? { class: "num" } : {}) });
  const button = make("button", title(name), { type: "button", "data-sort": name });
  button.addEventListener("click", () => {
    state.down = state.sort === name ? !state.down : numeric.has(name);
    state.sort = name;
    changed();
    document.querySelector(`[data-sort="${name}"]`).focus(); // the header was made anew
  });
  element.append(button);
  return element;
}

function render() {
  const kept = matching(), names = COLUMNS.filter((name) => state.columns.has(name));
  const heading = document.createElement("tr");
  heading.append(...names.map(header));
  get("scores").tHead.replaceChildren(heading);
  get("scores").tBodies[0].replaceChildren(...kept.slice(0, state.most).map((row) => line(row, names)));
  get("more").hidden = kept.length <= state.most;
  const set = Object.entries(state.chosen).filter(([, value]) => value).map(([name, value]) => value === PRIMARY ? value : `${name} ${value}`);
  get("count").textContent = `${kept.length} of ${rows.length} rows${set.length ? `: ${set.join(", ")}` : ""}`;
}

// --- what follows the filters: sections of a dataset, rows and marks of a family, the map's switch, paired differences ---

const pale = document.head.appendChild(make("style", ""));
const isOther = (value, wanted) => Boolean(value && wanted && value !== wanted);
const mapOf = (protocol) => maps.findIndex((map) => !protocol || map.dataset.protocols.split(" ").includes(protocol));

function follow() {
  const { family, protocol } = state.chosen;
  const compared = document.querySelector(`[data-protocol="${protocol}"]`) ? protocol : ""; // few-shot draws are not, nor is the floor
  for (const element of document.querySelectorAll("[data-dataset], [data-family]")) {
    const of = element.dataset;
    element.hidden = (of.dataset && !isIn(of.dataset)) || isOther(of.family, family) || isOther(of.protocol, compared);
  }
  // A family has one colour in every figure.
  const others = Object.entries(page.colours).filter(([name]) => isOther(name, family));
  pale.textContent = others.map(([, colour]) => `figure svg [style*="${colour}"]:not(defs *) { opacity: 0.1; }`).join("\n");
  for (const note of document.querySelectorAll("[data-gone]")) note.textContent = gone();
}

// The map shows what is chosen of its protocols, until its own switch says otherwise.
function switchMap() {
  const found = mapOf(state.chosen.protocol);
  if (found < 0) return;
  switches[found].checked = true;
  showMap();
}

// What the filters leave out, and what does not follow them.
function gone() {
  const { family, protocol } = state.chosen;
  const all = Object.keys(page.datasets), out = all.filter((name) => !isIn(name)).length, told = [];
  if (out) told.push(`${out} of ${all.length} datasets are left out of this page.`);
  if (family) told.push(`Families other than ${family} are left out of the map, the differences and the tables, and pale in figures; verdicts speak of all.`);
  if (protocol && mapOf(protocol) < 0) told.push(`The map and the differences have no view of ${protocol}: its rows are in the table.`);
  else if (protocol) told.push(`The map, and the differences where there are any, are of ${protocol}; other sections are of all protocols.`);
  return told.join(" ");
}

function changed() {
  state.most = STEP;
  render();
}

// --- filters: those that sections follow stand twice, above the page and above the table, and say the same ---

function options(name) {
  const values = name in Object.values(page.datasets)[0] ? Object.values(page.datasets).map((each) => each[name])
    : name === "dataset" ? Object.keys(page.datasets) : rows.map((row) => row[place[name]]);
  return [...new Set(values)].sort(byName);
}

function filter(name) {
  const select = make("select", "", { "data-filter": name });
  const values = name === "metric" ? [PRIMARY, ...options(name)] : options(name);
  select.append(make("option", "all", { value: "" }));
  select.append(...values.map((value) => make("option", name === "dataset" ? page.datasets[value].title : value, { value })));
  if (!values.includes(state.chosen[name])) state.chosen[name] = "";
  select.value = state.chosen[name];
  select.addEventListener("change", () => {
    state.chosen[name] = select.value;
    for (const twin of document.querySelectorAll(`[data-filter="${name}"]`)) twin.value = select.value;
    if (name === "protocol") switchMap();
    follow();
    changed();
  });
  const label = make("label", `${name} `);
  label.append(select);
  return label;
}

function chooser(name) {
  const box = make("input", "", { type: "checkbox", value: name });
  box.checked = state.columns.has(name);
  box.addEventListener("change", () => {
    if (box.checked) state.columns.add(name); else state.columns.delete(name);
    render();
  });
  const label = make("label", "");
  label.append(box, ` ${title(name)}`);
  return label;
}

// Every number in full; a cell that a spreadsheet would run as a formula is quoted with an apostrophe.
function download() {
  const cell = (value) => {
    const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value ?? "");
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = [columns, ...matching()].map((row) => row.map(cell).join(","));
  const link = make("a", "", { download: "scores.csv", href: URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" })) });
  link.click();
  URL.revokeObjectURL(link.href);
}

// On paper there is no "Show more", and no room for every column.
function onPaper(isOn) {
  state.most = isOn ? Infinity : STEP;
  state.columns = new Set(isOn ? IN_PRINT : [...document.querySelectorAll("#columns input:checked")].map((box) => box.value));
  render();
}

if (Object.keys(page.datasets).length) {
  for (const span of document.querySelectorAll("[data-filters]")) span.append(...span.dataset.filters.split(" ").map(filter));
  get("columns").append(...COLUMNS.map(chooser));
  for (const box of document.querySelectorAll(".filters")) box.hidden = false;
  get("search").addEventListener("input", changed);
  get("more").addEventListener("click", () => { state.most += STEP; render(); });
  get("download").addEventListener("click", download);
  addEventListener("beforeprint", () => onPaper(true));
  addEventListener("afterprint", () => onPaper(false));
  render();
}
