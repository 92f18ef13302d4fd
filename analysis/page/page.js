(() => {
"use strict";
const all = (query, root = document) => [...root.querySelectorAll(query)];
const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
const trials = data.trials, groups = data.groups, axes = data.axes;
const detail = byId("detail");

/* what a refresh keeps: filters, order, what is open and marked, and the place; by names and values, since numbers of
   trials and figures, and the ends of axes, change as trials arrive */
const place = "vqsweep " + data.id;
const home = (one) => (one.closest("figure")?.querySelector("svg[id]") ?? one.closest("section,form")).id;
const valueAt = (axis, share) => axis.log ? axis.low * (axis.high / axis.low) ** share
  : axis.low + share * (axis.high - axis.low);
const shareOf = (axis, value) => axis.log ? Math.log(value / axis.low) / Math.log(axis.high / axis.low)
  : (value - axis.low) / (axis.high - axis.low);
const valuesIn = (axis, [low, high]) => axis.values
  ? axis.values.filter((_, step) => axis.at[step] >= low - 1e-4 && axis.at[step] <= high + 1e-4)
  : [low > 0 ? valueAt(axis, low) : null, high < 1 ? valueAt(axis, high) : null];
const rangeOf = (axis, values) => {
  if (!axis.values) return values.map((value, end) => {
    const share = value === null ? end : shareOf(axis, Number(value));
    return Number.isFinite(share) ? share : end;
  });
  const at = axis.at.filter((_, step) => values.includes(axis.values[step]));
  return at.length ? [Math.min(...at), Math.max(...at)] : undefined;
};
let state = {ranges: {}, find: "", unended: true, sort: {}, open: [], pin: null, scroll: 0};
try {
  const kept = JSON.parse(sessionStorage.getItem(place));
  if (kept) {
    const ranges = axes.flatMap((axis, index) => {
      const values = kept.ranges[axis.label];
      const range = values && rangeOf(axis, axis.values || values.length === 2 ? values : [values[0], values.at(-1)]);
      return range ? [[index, range]] : [];
    });
    const [t, g] = [trials.findIndex((one) => one.key === kept.pin?.t), groups.findIndex((one) => one.name === kept.pin?.g)];
    const pin = t >= 0 ? {t: String(t)} : g >= 0 ? {g: String(g)} : null;
    state = {...state, ...kept, ranges: Object.fromEntries(ranges), pin};
  }
} catch { /* storage is refused */ }
const save = () => {
  state.scroll = window.scrollY;
  state.open = all("details").flatMap((one) => one.open ? [home(one)] : []);
  const ranges = Object.entries(state.ranges).map(([index, range]) => [axes[index].label, valuesIn(axes[index], range)]);
  const pin = state.pin && {t: trials[state.pin.t]?.key, g: groups[state.pin.g]?.name};
  try { sessionStorage.setItem(place, JSON.stringify({...state, ranges: Object.fromEntries(ranges), pin})); }
  catch { /* storage is refused */ }
};

/* the elements of each trial and configuration */
const ofTrial = trials.map(() => []), ofGroup = groups.map(() => []);
all("[data-t]").forEach((one) => ofTrial[one.dataset.t].push(one));
all("[data-g]").forEach((one) => ofGroup[one.dataset.g].push(one));

/* marking */
let marked = [];
const mark = (elements) => {
  marked.forEach((one) => one.classList.remove("on"));
  marked = elements;
  marked.forEach((one) => one.classList.add("on"));
};
const make = (name, text, attributes = {}) => {
  const one = document.createElement(name);
  if (text !== undefined) one.textContent = text;
  Object.entries(attributes).forEach(([key, value]) => one.setAttribute(key, value));
  return one;
};
const facts = (pairs) => {
  const list = make("dl");
  pairs.forEach(([name, value]) => list.append(make("dt", name), make("dd", value)));
  return list;
};
const picture = (t) => {
  const source = document.querySelector(`img[data-t="${t}"]`);
  return source ? [make("img", undefined, {src: source.src, alt: "its reconstructions"})] : [];
};
const showTrial = (t) => {
  const trial = trials[t], siblings = trial.g === null ? [] : ofGroup[trial.g];
  const parts = [make("h2", `${trial.name}, seed ${trial.seed}`)];
  parts.push(make("p", trial.state + (trial.why ? ": " + trial.why : "")), facts(trial.facts), ...picture(t));
  if (trial.run) parts.push(make("a", "its run in MLflow", {href: trial.run, target: "_blank", rel: "noopener"}));
  detail.replaceChildren(closer(), ...parts);
  detail.hidden = false;
  mark([...ofTrial[t], ...siblings]);
};
const showGroup = (g) => {
  const group = groups[g], members = trials.flatMap((trial, t) => trial.g === g ? [t] : []);
  if (members.length === 1) { showTrial(members[0]); return; }
  const shown = members.find((t) => picture(t).length);
  const parts = [make("h2", group.name), facts(group.facts), ...(shown === undefined ? [] : picture(shown))];
  detail.replaceChildren(closer(), ...parts);
  detail.hidden = false;
  mark([...ofGroup[g], ...members.flatMap((t) => ofTrial[t])]);
};
const closer = () => {
  const button = make("button", "×", {type: "button", class: "close", "aria-label": "close"});
  button.addEventListener("click", () => { state.pin = null; show(); });
  return button;
};
const show = (target) => {
  const one = target ? {t: target.dataset.t, g: target.dataset.g} : state.pin;
  if (!one) { detail.hidden = true; mark([]); }
  else if (one.t !== undefined && trials[one.t]) showTrial(Number(one.t));
  else if (one.g !== undefined && groups[one.g]) showGroup(Number(one.g));
};
const owner = (event) => event.target.closest && event.target.closest("[data-t],[data-g]");
document.addEventListener("pointerover", (event) => { const one = owner(event); if (one) show(one); });
document.addEventListener("pointerout", (event) => { if (owner(event)) show(); });
document.addEventListener("focusin", (event) => { const one = owner(event); if (one) show(one); });
document.addEventListener("click", (event) => {
  const one = owner(event);
  if (!one || event.target.closest("a,code")) return;
  const same = state.pin && state.pin.t === one.dataset.t && state.pin.g === one.dataset.g;
  state.pin = same ? null : {t: one.dataset.t, g: one.dataset.g};
  show();
});

/* the marks of a drawing are one stop of the tab key; arrows go from mark to mark */
const words = (one) => one.dataset.t === undefined ? groups[one.dataset.g].name
  : `${trials[one.dataset.t].name}, seed ${trials[one.dataset.t].seed}, ${trials[one.dataset.t].state}`;
const drawings = all("figure svg").map((drawing) => {
  const marks = all("[data-t],[data-g]", drawing).filter((one) => one.tagName !== "text");
  marks.forEach((one, index) => {
    one.setAttribute("tabindex", index ? "-1" : "0");
    one.setAttribute("role", "graphics-symbol");
    one.setAttribute("aria-label", words(one));
  });
  drawing.addEventListener("keydown", (event) => {
    const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
    const seen = marks.filter((one) => !one.classList.contains("off"));
    const at = seen.indexOf(event.target);
    if (event.key === "Enter" && at >= 0) event.target.dispatchEvent(new MouseEvent("click", {bubbles: true}));
    if (!step || at < 0) return;
    event.preventDefault();
    const next = seen[(at + step + seen.length) % seen.length];
    event.target.setAttribute("tabindex", "-1");
    next.setAttribute("tabindex", "0");
    next.focus();
  });
  return marks;
});
const reach = () => drawings.forEach((marks) => {
  const stop = marks.find((one) => one.getAttribute("tabindex") === "0");
  const seen = stop?.classList.contains("off") && marks.find((one) => !one.classList.contains("off"));
  if (seen) { stop.setAttribute("tabindex", "-1"); seen.setAttribute("tabindex", "0"); }
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape") { state.pin = null; show(); } });

/* filters: ranges of the axes as shares of their length, words, and whether a trial reached the end */
const rows = trials.map((_, t) => (ofTrial[t].find((one) => one.tagName === "TR") || {textContent: ""}).textContent.toLowerCase());
const inside = (trial) => Object.entries(state.ranges).every(([axis, [low, high]]) => {
  const at = trial.at[axis];
  return at !== null && at >= low - 1e-4 && at <= high + 1e-4;
});
const filter = () => {
  const visible = trials.map((trial, t) => inside(trial) && rows[t].includes(state.find.toLowerCase())
    && (state.unended || trial.state === "completed"));
  visible.forEach((seen, t) => ofTrial[t].forEach((one) => one.classList.toggle("off", !seen)));
  groups.forEach((_, g) => {
    const seen = trials.some((trial, t) => trial.g === g && visible[t]);
    ofGroup[g].forEach((one) => one.classList.toggle("off", !seen));
  });
  const number = visible.filter(Boolean).length;
  byId("count").textContent = `${number} of ${trials.length} trials`;
  byId("filters").classList.toggle("some", number < trials.length);
  drawBrushes();
  reach();
};
const brushes = all(".brush");
const drawBrushes = () => brushes.forEach((rect) => {
  const [low, high] = state.ranges[rect.dataset.axis] || [0, 0];
  let drawn = rect.nextElementSibling;
  if (!drawn || !drawn.classList.contains("brushed")) {
    drawn = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    drawn.setAttribute("class", "brushed");
    rect.after(drawn);
  }
  const top = Number(rect.getAttribute("y")), height = Number(rect.getAttribute("height"));
  drawn.setAttribute("x", rect.getAttribute("x"));
  drawn.setAttribute("width", rect.getAttribute("width"));
  drawn.setAttribute("y", top + (1 - high) * height);
  drawn.setAttribute("height", (high - low) * height);
});
const setRange = (axis, range) => {
  if (range) state.ranges[axis] = range; else delete state.ranges[axis];
  fillInputs();
  filter();
};
brushes.forEach((rect) => {
  const share = (event) => {
    const box = rect.getBoundingClientRect();
    return Math.min(1, Math.max(0, (box.bottom - event.clientY) / box.height));
  };
  let from = null;
  rect.addEventListener("pointerdown", (event) => { from = share(event); rect.setPointerCapture(event.pointerId); });
  rect.addEventListener("pointermove", (event) => {
    if (from !== null) setRange(rect.dataset.axis, [Math.min(from, share(event)), Math.max(from, share(event))]);
  });
  rect.addEventListener("pointerup", (event) => {
    if (Math.abs(from - share(event)) < 0.01) setRange(rect.dataset.axis, null);
    from = null;
  });
});
const inputs = [];
const fillInputs = () => inputs.forEach((fill) => fill());
axes.forEach((axis, index) => {
  const box = make("fieldset"), range = () => state.ranges[index];
  box.append(make("legend", axis.label));
  if (axis.values) {
    const choice = (text, at) => {
      const label = make("label"), input = make("input", undefined, {type: "radio", name: "axis" + index});
      label.append(input, " " + text);
      input.addEventListener("change", () => setRange(index, at === null ? null : [at, at]));
      inputs.push(() => { input.checked = at === null ? !range() : Boolean(range()) && range()[0] <= at && at <= range()[1]; });
      box.append(label);
    };
    choice("any", null);
    axis.values.forEach((text, step) => choice(text, axis.at[step]));
  } else {
    const ends = ["from", "to"].map((word, end) => {
      const label = make("label", word + " "), input = make("input", undefined, {type: "number", step: "any"});
      label.append(input);
      inputs.push(() => {
        const free = !range() || (end ? range()[1] >= 1 : range()[0] <= 0);  // this end is as far as it goes
        input.value = free ? "" : String(Number(valueAt(axis, range()[end]).toPrecision(4)));
      });
      box.append(label);
      return input;
    });
    ends.forEach((input) => input.addEventListener("change", () => {
      const given = ends.map((one) => one.value === "" ? null : one.value);
      setRange(index, given.every((one) => one === null) ? null : rangeOf(axis, given));
    }));
  }
  byId("ranges").append(box);
});
const find = byId("find"), unended = byId("unended");
find.addEventListener("input", () => { state.find = find.value; filter(); });
unended.addEventListener("change", () => { state.unended = unended.checked; filter(); });
byId("clear").addEventListener("click", () => {
  Object.assign(state, {ranges: {}, find: "", unended: true});
  restore();
});
byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("filters").hidden = false;

/* tables sort by a click on a head */
const key = (cell) => {
  const number = Number(cell.dataset.v ?? cell.textContent.replace(/,/g, "").replace(/^\(|\)$/g, "").split(/[ ±*%[\]]/).find(Boolean));
  return Number.isNaN(number) || cell.textContent.trim() === "" ? cell.textContent : number;
};
const compare = (a, b) => typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;
const sort = (table, column, descending) => {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  const keyed = [...body.rows].map((row) => [key(row.cells[column]), row]);
  keyed.sort(([a], [b]) => descending && typeof a === typeof b ? compare(b, a) : compare(a, b));  // words after numbers
  body.append(...keyed.map(([, row]) => row));
  heads.forEach((head, index) => index === column
    ? head.setAttribute("aria-sort", descending ? "descending" : "ascending") : head.removeAttribute("aria-sort"));
};
all("table").forEach((table) => {
  if (table.tBodies[0].rows.length < 3) return;
  const kept = state.sort[home(table)];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const name = head.textContent;
    if (!name) return;
    const button = make("button", name, {type: "button"});
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      state.sort[home(table)] = [name, descending];
      sort(table, column, descending);
    });
    if (kept && kept[0] === name) sort(table, column, kept[1]);
  });
});

const restore = () => {
  find.value = state.find;
  unended.checked = state.unended;
  fillInputs();
  filter();
  show();
};
all("details").forEach((one) => { if (state.open.includes(home(one))) one.open = true; });
restore();
if (state.scroll && !location.hash) window.scrollTo({top: state.scroll, behavior: "instant"});
window.addEventListener("pagehide", save);
/* not while someone types, drags, or is at a mark with the keyboard */
let held = false;
document.addEventListener("pointerdown", () => { held = true; });
document.addEventListener("pointerup", () => { held = false; });
const refresh = () => {
  if (held || ![null, document.body].includes(document.activeElement)) { setTimeout(refresh, 5000); return; }
  save();
  location.reload();
};
if (data.refresh) setTimeout(refresh, data.refresh * 1000);
})();
