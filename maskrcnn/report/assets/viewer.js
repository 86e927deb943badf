"use strict";
// One image, large, with its instances listed.
window.viewer = (() => {
  const TEXT_PX = 12.5;
  const CROWDED = 40;  // more shapes than this show their texts one by one
  const OUTCOMES = { right: "right", wrong: "false", missed: "missed", plain: "–" };
  const element = (id) => document.getElementById(id);
  let table, gallery, place = null;

  function begin(theTable, theGallery) {
    table = theTable;
    gallery = theGallery;
    const dialog = element("viewer");
    element("viewer-previous").addEventListener("click", () => move(-1));
    element("viewer-next").addEventListener("click", () => move(1));
    element("viewer-close").addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => {
      const shown = place;
      place = null;
      element("viewer-picture").replaceChildren();
      element("viewer-instances").replaceChildren();
      gallery.closed(shown);
    });
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    dialog.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      move(step);
    });
    ["mouseover", "focusin"].forEach((kind) => dialog.addEventListener(kind, (event) => light(keyOf(event))));
  }

  const isOpen = () => place !== null;

  function keyOf(event) {
    const marked = event.target.closest("[data-key]");
    return marked ? marked.dataset.key : null;
  }

  function light(key) {
    element("viewer").querySelectorAll("[data-key]").forEach((marked) => {
      marked.classList.toggle("lit", marked.dataset.key === key);
    });
  }

  function move(step) {
    const next = gallery.neighbour(place, step);
    if (next !== null) gallery.open(next);
  }

  // Show an image; the page's address already says so.
  function show(wanted) {
    place = wanted;
    const dialog = element("viewer");
    if (!dialog.open) dialog.showModal();
    const name = table.names[place];
    element("viewer-name").textContent = name;
    element("viewer-name").title = table.prefix + name;
    element("viewer-place").textContent = gallery.tellPlace(place);
    element("viewer-instances").replaceChildren();
    element("viewer-picture").replaceChildren();
    if (table.states[place] === 1) {
      tellReason();
      return;
    }
    gallery.outlines(place).then(
      (outlines) => { if (place === wanted) draw(outlines); },
      (error) => { element("viewer-status").textContent = error.message; },
    );
  }

  function tellReason() {
    const text = document.createElement("p");
    text.className = "reason";
    text.textContent = table.reasons[place];
    element("viewer-picture").replaceChildren(text);
    element("viewer-status").textContent = table.states[place] === 1 ? "This image could not be labelled." : "";
  }

  function draw(outlines) {
    const size = table.size(place);
    const view = gallery.view();
    const shapes = window.marks.list(table, place, outlines, view);
    const svg = window.marks.make("svg", {
      viewBox: `0 0 ${size.width} ${size.height}`, role: "img", "aria-label": table.names[place],
    });
    if (table.states[place] === 0) {
      svg.append(window.marks.make("image", { href: gallery.pictureOf(place), width: size.width, height: size.height }));
    } else {
      svg.append(window.marks.make("rect", { width: size.width, height: size.height, class: "no-photo" }));
    }
    const { clientWidth, clientHeight } = element("viewer-picture");
    const pixel = Math.max(size.width / clientWidth, size.height / clientHeight);
    svg.append(...window.marks.toSvg(shapes, size, outlines, view, TEXT_PX * pixel));
    svg.classList.toggle("crowded", shapes.length > CROWDED);
    svg.classList.toggle("no-texts", !view.texts);
    element("viewer-picture").replaceChildren(svg);
    const missed = shapes.filter((shape) => shape.score === null);
    const found = shapes.filter((shape) => shape.score !== null).reverse();
    const told = `${found.length} shown` + (missed.length ? `, ${missed.length} missed` : "");
    const reason = table.states[place] === 2 ? `. No photo: ${table.reasons[place]}` : "";
    element("viewer-status").textContent = `${size.width} × ${size.height} px, ${told}${reason}`;
    element("viewer-instances").replaceChildren(...[...found, ...missed].map((shape) => rowOf(shape, outlines.scale)));
  }

  function rowOf(shape, scale) {
    const row = document.createElement("tr");
    row.dataset.key = shape.key;
    row.tabIndex = 0;
    const sides = shape.box.slice(2).map((side) => Math.round(side * scale)).join(" × ");
    const cells = [shape.number || "", shape.label, shape.score === null ? "" : shape.score.toFixed(3), sides];
    if (table.hasTruth) cells.push(OUTCOMES[shape.style.name]);
    cells.forEach((text, at) => {
      const cell = document.createElement("td");
      cell.textContent = text;
      if (at === 2 || at === 3) cell.className = "number";
      if (at === 4) cell.className = `outcome ${shape.style.name}`;
      row.append(cell);
    });
    return row;
  }

  return { begin, show, isOpen, redraw: () => { if (isOpen()) show(place); }, close: () => element("viewer").close() };
})();
