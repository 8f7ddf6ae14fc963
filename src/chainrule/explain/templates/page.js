"use strict";
// The stepper: shows one link of the backward pass at a time. All data stands in the JSON block; nothing is fetched.
// Text from the user's program is only ever set as text, never as markup.

const data = JSON.parse(document.getElementById("data").textContent);

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function math(latex, display) {
  const span = make("span");
  katex.render(latex, span, { displayMode: display, throwOnError: false, strict: "ignore" });
  return span;
}

const short = (value, digits = 4) => (typeof value === "number" ? String(Number(value.toPrecision(digits))) : String(value));

// --- arrays as pictures

const unpacked = (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);

function cell(picture, row, column) {
  picture.codes ??= unpacked(picture.packed);
  const code = picture.codes.getInt16(2 * (row * picture.across + column), true);
  return code === -32768 ? NaN : (code / 32767) * picture.largest;
}

// The index of the entry that a cell shows.
function indexOf(picture, row, column) {
  let inside = 0;
  if (picture.offsets) {
    picture.places ??= unpacked(picture.offsets);
    inside = picture.places.getUint32(4 * (row * picture.across + column), true);
  }
  const [down, across] = picture.block;
  let lead = row * down + Math.floor(inside / across);
  const last = column * across + (inside % across);
  if (!picture.shape.length) return [];
  const index = [last];
  for (const size of picture.shape.slice(0, -1).reverse()) {
    index.unshift(lead % size);
    lead = Math.floor(lead / size);
  }
  return index;
}

function palette() {
  const style = getComputedStyle(document.documentElement);
  const rgb = (name) => {
    const hex = style.getPropertyValue(name).trim().slice(1);
    return [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16));
  };
  return { zero: rgb("--zero"), negative: rgb("--negative"), positive: rgb("--positive"), broken: rgb("--broken") };
}
let colours = palette();

// The square root of the size: small entries stay visible beside one large one. The scale under each picture says so.
function colour(share) {
  if (Number.isNaN(share)) return colours.broken;
  const end = share < 0 ? colours.negative : colours.positive;
  const weight = Math.sqrt(Math.min(1, Math.abs(share)));
  return colours.zero.map((z, i) => Math.round(z + (end[i] - z) * weight));
}

function paint(canvas, picture) {
  canvas.width = picture.across;
  canvas.height = picture.down;
  const context = canvas.getContext("2d");
  const image = context.createImageData(picture.across, picture.down);
  for (let row = 0; row < picture.down; row++) {
    for (let column = 0; column < picture.across; column++) {
      const at = 4 * (row * picture.across + column);
      const [r, g, b] = colour(cell(picture, row, column) / (picture.largest || 1));
      image.data.set([r, g, b, 255], at);
    }
  }
  context.putImageData(image, 0, 0);
}

function canvasOf(picture, width, height) {
  const canvas = make("canvas", { role: "img", "aria-label": picture.described });
  canvas.style.width = `${Math.round(width)}px`;
  canvas.style.height = `${Math.round(height)}px`;
  // Cells keep sharp edges while they are larger than a pixel; smaller ones are averaged, not dropped.
  canvas.style.imageRendering = width >= picture.across && height >= picture.down ? "pixelated" : "auto";
  paint(canvas, picture);
  return canvas;
}

function sized(picture, scale, least = 9) {
  return [Math.max(least, picture.columns * scale), Math.max(least, picture.rows * scale)];
}

function figure(picture, latex, scale) {
  const [width, height] = sized(picture, scale);
  const tall = picture.shape.length > 2;
  const down = picture.shape.length < 2 ? "" : tall ? picture.shape.slice(0, -1).join("·") : String(picture.rows);
  const across = picture.shape.length ? String(picture.columns) : "";
  return make("figure", { class: "heat" },
    make("span", { class: "edge across" }, across),
    make("span", { class: "edge down" }, down),
    canvasOf(picture, width, height),
    make("figcaption", {}, math(latex, false)));
}

function locate(canvas, picture, event) {
  const area = canvas.getBoundingClientRect();
  const inside = (share, count) => Math.min(count - 1, Math.max(0, Math.floor(share * count)));
  return [inside((event.clientY - area.top) / area.height, picture.down), inside((event.clientX - area.left) / area.width, picture.across)];
}

// What the colours mean.
function legend(picture) {
  const bar = make("canvas", { "aria-hidden": "true" });
  bar.width = 97;
  bar.height = 1;
  const context = bar.getContext("2d");
  for (let i = 0; i < 97; i++) {
    context.fillStyle = `rgb(${colour((i - 48) / 48).join(" ")})`;
    context.fillRect(i, 0, 1, 1);
  }
  return make("div", { class: "scale" }, short(-picture.largest, 3), bar, short(picture.largest, 3));
}

// --- one chapter

class Chapter {
  constructor(root, content) {
    this.root = root;
    this.content = content;
    this.view = 0;
    this.step = 0;
    this.entry = null;
    this.card = root.querySelector(".card");
    this.slider = root.querySelector(".controls input");
    this.ledger = root.querySelector(".ledger ol");
    root.querySelector(".previous").addEventListener("click", () => this.move(-1));
    root.querySelector(".next").addEventListener("click", () => this.move(1));
    this.slider.addEventListener("input", () => this.go(Number(this.slider.value) - 1));
    for (const button of root.querySelectorAll(".depth button")) {
      button.addEventListener("click", () => this.setView(Number(button.dataset.view)));
    }
    for (const row of root.querySelectorAll("tr[data-step]")) {
      row.querySelector("a").addEventListener("click", (event) => {
        event.preventDefault();
        this.setView(0);
        this.go(Number(row.dataset.step));
        this.root.querySelector(".stage").scrollIntoView({ block: "start" });
      });
    }
  }

  get steps() { return this.content.views[this.view].steps; }

  move(by) { this.go(this.step + by); }

  go(step) {
    this.step = Math.max(0, Math.min(this.steps.length - 1, step));
    this.entry = null;
    this.show();
  }

  setView(view) {
    if (view === this.view) return;
    const name = this.steps[this.step].name;
    this.view = view;
    const same = this.steps.findIndex((step) => step.name === name);
    this.ledger.replaceChildren();
    this.go(same >= 0 ? same : 0);
  }

  show() {
    const step = this.steps[this.step];
    this.showControls(step);
    this.showProgram(step);
    this.showLedger();
    this.card.replaceChildren(...this.sections(step).filter(Boolean));
  }

  showControls(step) {
    this.slider.max = this.steps.length;
    this.slider.value = this.step + 1;
    this.slider.setAttribute("aria-valuetext", `${this.step + 1} of ${this.steps.length}: gradient of ${step.name}`);
    this.root.querySelector(".counter").textContent = `${this.step + 1} / ${this.steps.length}`;
    this.root.querySelector(".previous").disabled = this.step === 0;
    this.root.querySelector(".next").disabled = this.step === this.steps.length - 1;
    for (const button of this.root.querySelectorAll(".depth button")) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.view) === this.view));
    }
  }

  showProgram(step) {
    for (const line of this.root.querySelectorAll(".line.here, .line.near")) {
      line.classList.remove("here", "near");
      line.removeAttribute("aria-current");
    }
    const near = [];
    let here = null;
    for (const [file, number, called] of step.lines) {
      const source = [...this.root.querySelectorAll(".source")].find((s) => s.dataset.file === file);
      const line = source && source.querySelector(`.line[data-line="${number}"]`);
      if (!line) continue;
      line.classList.add(called ? "here" : "near");
      if (called) line.setAttribute("aria-current", "true");
      if (called) here = here || line;
      else near.push(line);
    }
    const target = here || near[0];
    if (target) {
      const box = target.closest(".code");
      const top = target.offsetTop - box.clientHeight / 2;
      if (target.offsetTop < box.scrollTop + 10 || target.offsetTop > box.scrollTop + box.clientHeight - 40) box.scrollTop = top;
    }
  }

  showLedger() {
    if (!this.ledger.children.length) {
      this.steps.forEach((step, index) => {
        const picture = this.content.pictures[step.gradient];
        const scale = Math.min(44 / picture.columns, 34 / picture.rows);
        const canvas = canvasOf(picture, ...sized(picture, scale, 5));
        canvas.className = "thumb";
        canvas.setAttribute("aria-hidden", "true");
        this.ledger.append(make("li", {},
          make("button", { type: "button", onclick: () => this.go(index) }, canvas,
            make("span", { class: "name" }, `${step.name}.g`),
            make("span", { class: "what" }, `${this.shapeOf(picture)} · norm ${short(step.norm)}`))));
      });
    }
    [...this.ledger.children].forEach((item, index) => {
      item.classList.toggle("ahead", index > this.step);
      item.firstChild.setAttribute("aria-current", String(index === this.step));
    });
    const current = this.ledger.children[this.step];
    this.ledger.scrollTop = Math.max(0, current.offsetTop - this.ledger.offsetTop - this.ledger.clientHeight + current.clientHeight);
  }

  shapeOf(picture) {
    return picture.shape.length === 1 ? `(${picture.shape[0]},)` : `(${picture.shape.join(", ")})`;
  }

  sections(step) {
    return [
      make("div", { class: "heading", "aria-live": "polite" },
        make("h2", { class: "rule", style: "margin:0;color:inherit" }, `${step.name}.g`),
        make("span", { class: "quiet" }, step.rule ? `sent back by ${step.rule}` : "", step.place ? `, ${step.place}` : "")),
      step.forward.length ? make("p", { class: "forward" }, make("span", { class: "quiet" }, "forward "),
        ...step.forward.flatMap((line, i) => [i ? make("br") : null, make("code", {}, line)]).filter(Boolean)) : null,
      make("div", { class: "formula" }, math(step.latex, true)),
      this.measures(step),
      step.notes.length ? make("ul", { class: "notes" }, ...step.notes.map((note) => make("li", {}, note))) : null,
      this.picture(step),
      this.gradient(step),
      this.reasons(step),
      step.to_the_loss ? make("div", { class: "whole" },
        make("h3", {}, "Written out, all the way from the loss"),
        make("div", { class: "formula" }, math(step.to_the_loss, true))) : null,
      this.python(step),
    ];
  }

  measures(step) {
    const fact = (name, value) => make("div", {}, make("dt", {}, name), make("dd", {}, value));
    return make("dl", { class: "measures" },
      fact("Shapes", make("span", { class: "shape" }, step.shapes)),
      fact("Norm", short(step.norm, 5)),
      step.gain === null ? null : fact("Gain", `×${short(step.gain, 3)}`),
      fact("Re-evaluated", make("span", { class: `verdict ${step.state}` }, step.verdict)));
  }

  // The formula as arrays: operands, what joins them, the gradient they give.
  picture(step) {
    if (!step.operands.length) return null;
    const result = { latex: step.symbol, picture: step.gradient, sign: step.operands[0].joined ? "=" : "→", name: `${step.name}.g` };
    const shown = [...step.operands, result];
    const pictures = shown.map((o) => this.content.pictures[o.picture]);
    const room = Math.min(600, this.card.clientWidth - 60) - 62 * shown.length;
    const scale = Math.min(room / pictures.reduce((n, p) => n + p.columns, 0), 170 / Math.max(...pictures.map((p) => p.rows)), 15);
    const under = make("p", { class: "under" });
    const rest = [...new Set(pictures.map((p) => p.pooling).filter(Boolean))].length ? "Large arrays: a cell shows the largest of its entries." : "";
    const parts = shown.flatMap((o, i) => {
      const box = figure(pictures[i], o.latex, Math.max(scale, 0.05));
      this.readout(box.querySelector("canvas"), pictures[i], o.name, under, rest);
      return [o.sign ? make("span", { class: "sign" }, o.sign) : null, box];
    });
    return make("div", {},
      make("div", { class: "picture", role: "group", "aria-label": `${step.written}: its operands` }, ...parts.filter(Boolean)), under);
  }

  // The cell under the pointer, in words.
  readout(canvas, picture, name, under, rest) {
    under.textContent = rest;
    canvas.addEventListener("mousemove", (event) => {
      const [row, column] = locate(canvas, picture, event);
      under.textContent = `${this.cellName(name, picture, row, column)} = ${short(cell(picture, row, column))}`;
    });
    canvas.addEventListener("mouseleave", () => { under.textContent = rest; });
  }

  // A gradient that was asked about, large, and one entry of it term by term.
  gradient(step) {
    const indices = Object.keys(step.entries);
    if (!indices.length) return null;
    const picture = this.content.pictures[step.gradient];
    const room = Math.min(this.card.clientWidth - 90, 620);
    const wide = picture.columns > 3 * picture.rows;
    const scale = Math.min((wide ? room : Math.min(room, 300)) / picture.columns, 240 / picture.rows, 22);
    const box = figure(picture, step.symbol, scale);
    const canvas = box.querySelector("canvas");
    const under = make("p", { class: "under" });
    const entry = make("div", { class: "entry", "aria-live": "polite" });
    const beside = make("p", { class: "picked", role: "status" });
    this.readout(canvas, picture, `${step.name}.g`, under, picture.pooling);
    canvas.addEventListener("click", (event) => this.pick(step, picture, entry, beside, ...locate(canvas, picture, event)));
    box.classList.add("pick");
    const buttons = indices.map((index) => make("button", {
      type: "button", "data-index": index, onclick: () => this.showEntry(step, entry, index),
    }, `[${index}]`));
    this.showEntry(step, entry, indices[0]);
    return make("div", { class: wide ? "gradient wide" : "gradient" },
      make("h3", {}, "The gradient, and one entry of it"),
      make("div", {}, box, legend(picture), under, beside),
      make("div", {},
        make("p", { class: "quiet" }, picture.rows * picture.columns > 1 ? "Click a cell, or open one of these, the largest first:" : "Its one entry:"),
        make("div", { class: "picks", role: "group", "aria-label": "Entries opened term by term" }, ...buttons)),
      entry);
  }

  cellName(name, picture, row, column) {
    const at = indexOf(picture, row, column);
    return at.length ? `${name}[${at.join(",")}]` : name;
  }

  pick(step, picture, box, beside, row, column) {
    const at = indexOf(picture, row, column);
    const held = Boolean(step.entries[at.join(",")]);
    beside.textContent = held ? `Opened: [${at.join(", ")}]` : `[${at.join(", ")}] is not opened on this page; below, how to ask for it.`;
    if (held) {
      this.showEntry(step, box, at.join(","));
      return;
    }
    this.mark(box, null);
    box.replaceChildren(
      make("p", { class: "equation" }, `${this.cellName(`${step.name}.grad`, picture, row, column)} = ${short(cell(picture, row, column))}`),
      make("p", { class: "quiet" }, "This page holds the terms of the entries listed above. For those of this one:"),
      make("pre", {}, `cr.explain(${this.content.loss}, wrt=${step.wrt}, at=${at.length === 1 ? at[0] : `(${at.join(", ")})`})`));
  }

  mark(box, index) {
    const group = box.parentElement && box.parentElement.querySelector(".picks");
    if (!group) return;
    for (const button of group.children) button.setAttribute("aria-pressed", String(button.dataset.index === index));
  }

  showEntry(step, box, index) {
    const entry = step.entries[index];
    queueMicrotask(() => this.mark(box, index)); // once the box stands beside its buttons
    const head = `${step.name}.grad[${index}] = ${short(entry.value, 7)}`;
    const children = [make("p", { class: "equation" }, make("strong", {}, head), ` = ${entry.formula}`)];
    if (entry.over) {
      children.push(make("p", { class: "quiet" }, `over ${entry.over}; ${entry.nonzero} of ${entry.count} terms are not 0`));
      const rows = entry.terms.flatMap((term) => [
        make("tr", {},
          make("td", {}, make("code", {}, term.factors.map((f) => f.what).join(" × "))),
          make("td", { class: "numeric" }, term.factors.map((f) => short(f.value, 6)).join(" × ")),
          make("td", { class: "numeric" }, short(term.value, 6))),
        term.opened ? make("tr", { class: "opened" }, make("td", { colspan: "3" }, term.opened)) : null,
      ]);
      const others = entry.count - entry.terms.length;
      if (others > 0) rows.push(make("tr", {}, make("td", {}, `${others} other terms`), make("td"), make("td", { class: "numeric" }, short(entry.rest, 6))));
      children.push(make("div", { class: "scroll" }, make("table", {},
        make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Largest terms"), make("th", { scope: "col", class: "numeric" }, "Factors"), make("th", { scope: "col", class: "numeric" }, "Value"))),
        make("tbody", {}, ...rows.filter(Boolean)))));
    }
    box.replaceChildren(...children);
  }

  reasons(step) {
    if (!step.reasons.length) return null;
    return make("div", { class: "why" }, ...step.reasons.map((reason) => make("div", {},
      make("h3", {}, reason.title[0].toUpperCase() + reason.title.slice(1)),
      make("pre", {}, reason.lines.join("\n")))));
  }

  python(step) {
    if (!step.code) return null;
    const said = make("span", { class: "quiet", role: "status" });
    const block = make("pre", { tabindex: "0" }, step.code);
    return make("div", { class: "python" },
      make("div", { class: "bar" },
        make("button", { type: "button", class: "copy", onclick: () => copy(step.code, block, said) }, "Copy as Python"), said),
      make("details", {}, make("summary", {}, "The code"), block));
  }

  repaint() {
    this.ledger.replaceChildren();
    this.show();
  }
}

async function copy(code, block, said) {
  try {
    await navigator.clipboard.writeText(code);
    said.textContent = "Copied. It runs at the end of your program, while its tensors are as they were at backward(), and asserts this link.";
  } catch {
    block.parentElement.open = true;
    getSelection().selectAllChildren(block);
    said.textContent = "Selected: press Ctrl+C, or ⌘C.";
  }
}

// --- the page

const chapters = data.chapters.map((content, index) => new Chapter(document.getElementById(`chapter-${index}`), content));
const tabs = [...document.querySelectorAll("[role=tab]")];
let open = 0;

function openChapter(index) {
  open = index;
  tabs.forEach((tab, i) => {
    tab.setAttribute("aria-selected", String(i === index));
    tab.tabIndex = i === index ? 0 : -1;
  });
  chapters.forEach((chapter, i) => { chapter.root.hidden = i !== index; });
  chapters[index].repaint();
}

tabs.forEach((tab, index) => {
  tab.addEventListener("click", () => openChapter(index));
  tab.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    const next = (index + by + tabs.length) % tabs.length;
    openChapter(next);
    tabs[next].focus();
  });
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("textarea, select, input:not([type=range])")) return;
  const by = { n: 1, p: -1 }[event.key];
  if (by) chapters[open].move(by);
});

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  colours = palette();
  chapters[open].repaint();
});

openChapter(0);
