"use strict";
// The protocol switch of the map, and the table of everything. Text goes in as text, never as HTML.

for (const input of document.querySelectorAll("[data-switch] input")) {
  const show = () => {
    if (!input.checked) return;
    for (const map of document.querySelectorAll("[data-map]")) map.hidden = map.dataset.map !== input.value;
  };
  input.addEventListener("change", show);
  show();
}

// A link to a closed cell opens it.
function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) target.open = true;
}
addEventListener("hashchange", reveal);
reveal();

// `columns` are what the CSV holds; the page shows low and high as one bracket, which sorts by its lower end.
const { columns, rows } = JSON.parse(document.getElementById("everything").textContent);
const PAGE = 200;
const SELECTS = { dataset: "", protocol: "", part: "test", metric: "", class: "macro" };
const numeric = new Set(["value", "low", "high", "n_patients", "n_samples", "n_classes", "seconds", "peak_gb", "seed"]);
const decimals = { value: 3, seconds: 1, peak_gb: 2 };
const state = { sort: null, down: false, shown: PAGE, chosen: { ...SELECTS } };
const shownColumns = columns.filter((name) => name !== "high");
const place = Object.fromEntries(columns.map((name, index) => [name, index]));
const get = (id) => document.getElementById(id);

function make(tag, text, attributes = {}) {
  const element = document.createElement(tag);
  element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function matching() {
  const words = get("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const kept = rows.filter((row) =>
    Object.entries(state.chosen).every(([name, value]) => !value || row[place[name]] === value) &&
    words.every((word) => row.some((cell) => String(cell ?? "").toLowerCase().includes(word))));
  if (state.sort === null) return kept;
  const at = place[state.sort], sign = state.down ? -1 : 1;
  return kept.sort((a, b) => {
    if (a[at] === null || b[at] === null) return (a[at] === null) - (b[at] === null); // missing last, either way
    return sign * (numeric.has(state.sort) ? a[at] - b[at] : String(a[at]).localeCompare(String(b[at])));
  });
}

function written(row, name) {
  const value = row[place[name]];
  if (value === null) return "–";
  if (name === "low") return `[${value.toFixed(3)}, ${row[place.high].toFixed(3)}]`;
  return name in decimals ? value.toFixed(decimals[name]) : String(value);
}

function render() {
  const kept = matching();
  get("count").textContent = `${kept.length} of ${rows.length} rows`;
  get("scores").tBodies[0].replaceChildren(...kept.slice(0, state.shown).map((row) => {
    const line = document.createElement("tr");
    for (const name of shownColumns) {
      const missing = row[place[name]] === null ? { title: row[place.note] || "not measured" } : {};
      line.append(make("td", written(row, name), { ...missing, ...(numeric.has(name) ? { class: "num" } : {}) }));
    }
    return line;
  }));
  get("more").hidden = kept.length <= state.shown;
  for (const header of get("scores").tHead.rows[0].cells)
    header.setAttribute("aria-sort", header.dataset.name !== state.sort ? "none" : state.down ? "descending" : "ascending");
}

function changed(update) {
  update();
  state.shown = PAGE;
  render();
}

const heading = document.createElement("tr");
for (const name of shownColumns) {
  const header = make("th", "", { scope: "col", "data-name": name, ...(numeric.has(name) ? { class: "num" } : {}) });
  const button = make("button", name === "low" ? "95 % interval" : name.replaceAll("_", " "), { type: "button" });
  button.addEventListener("click", () => changed(() => {
    state.down = state.sort === name ? !state.down : numeric.has(name);
    state.sort = name;
  }));
  header.append(button);
  heading.append(header);
}
get("scores").tHead.append(heading);

for (const name of Object.keys(SELECTS)) {
  const values = [...new Set(rows.map((row) => row[place[name]]))].sort();
  const select = make("select", "");
  select.append(make("option", "all", { value: "" }), ...values.map((value) => make("option", value, { value })));
  if (values.includes(SELECTS[name])) select.value = SELECTS[name];
  state.chosen[name] = select.value;
  select.addEventListener("change", () => changed(() => { state.chosen[name] = select.value; }));
  const label = make("label", `${name} `);
  label.append(select);
  get("selects").append(label, " ");
}
get("search").addEventListener("input", () => changed(() => {}));
get("more").addEventListener("click", () => { state.shown += PAGE; render(); });

// Every number in full; a cell that a spreadsheet would run as a formula is quoted with an apostrophe.
get("download").addEventListener("click", () => {
  const cell = (value) => {
    const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value ?? "");
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = [columns, ...matching()].map((row) => row.map(cell).join(","));
  const link = make("a", "", { download: "scores.csv", href: URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" })) });
  link.click();
  URL.revokeObjectURL(link.href);
});
get("filters").hidden = false;
render();
