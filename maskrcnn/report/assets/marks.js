"use strict";
// Boxes and masks over a photo, from outlines: on a canvas for the small pictures, as SVG for the large one.
window.marks = (() => {
  const RIGHT = 1, WRONG = 2;
  // Told apart by their lines as well as by their colours.
  const RIGHT_STYLE = { color: "#2fd6a3", dash: [], name: "right" };
  const WRONG_STYLE = { color: "#ff7a2f", dash: [6, 4], name: "wrong" };
  const MISSED_STYLE = { color: "#ffe14d", dash: [2, 3], name: "missed" };
  const CASING = "rgba(0, 0, 0, .55)";

  // Told apart by people of any colour vision. Source: Okabe and Ito, "Color Universal Design" (2008).
  const COLORS = ["#009e73", "#d55e00", "#56b4e9", "#e69f00", "#cc79a7", "#0072b2", "#f0e442"];
  const colorOf = (label) => COLORS[label % COLORS.length];

  function styleOf(table, instance) {
    const outcome = table.hasTruth ? table.outcomes[instance] : 0;
    if (outcome === RIGHT) return RIGHT_STYLE;
    if (outcome === WRONG) return WRONG_STYLE;
    return { color: colorOf(table.labels[instance]), dash: [], name: "plain" };
  }

  // Everything to draw of an image, the best on top.
  function list(table, place, outlines, view) {
    const shapes = [];
    const first = table.begins[place];
    for (let instance = table.begins[place + 1] - 1; instance >= first; instance--) {
      if (!window.columns.isShown(table, instance, view)) continue;
      shapes.push({
        key: `${instance - first}`,
        number: instance - first + 1,
        label: table.categories[table.labels[instance]],
        score: table.scores[instance] / table.steps,
        style: styleOf(table, instance),
        box: outlines.boxes[instance - first],
        rings: outlines.rings ? outlines.rings[instance - first] : [],
        isFilled: true,
      });
    }
    if (!table.hasTruth || !outlines.truth_boxes) return shapes;
    const firstTruth = table.truthBegins[place];
    for (let truth = firstTruth; truth < table.truthBegins[place + 1]; truth++) {
      if (!window.columns.isMissed(table, truth, view)) continue;
      shapes.push({
        key: `missed-${truth - firstTruth}`,
        number: null,
        label: table.categories[table.truthLabels[truth]],
        score: null,
        style: MISSED_STYLE,
        box: outlines.truth_boxes[truth - firstTruth],
        rings: outlines.truth_rings[truth - firstTruth],
        isFilled: false,
      });
    }
    return shapes;
  }

  const drawsBox = (shape, view) => view.boxes || !view.masks || !shape.rings.length;
  const drawsRings = (shape, view) => view.masks && shape.rings.length > 0;

  const clear = (canvas) => canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);

  function drawOnCanvas(canvas, size, outlines, shapes, view) {
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    const width = canvas.clientWidth, height = canvas.clientHeight;
    clear(canvas);
    // Even the same size, set again, would take other memory.
    if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
    if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
    const fit = Math.min(width / size.width, height / size.height);
    const pen = canvas.getContext("2d");
    const scale = fit * outlines.scale * ratio;
    const left = (width - size.width * fit) / 2 * ratio, top = (height - size.height * fit) / 2 * ratio;
    const placed = new DOMMatrix([scale, 0, 0, scale, left, top]);
    shapes.forEach((shape) => {
      const path = new Path2D();
      path.addPath(new Path2D(pathOf(shape, 1, view)), placed);
      if (shape.isFilled && drawsRings(shape, view)) {
        const rings = new Path2D();
        rings.addPath(new Path2D(ringsOf(shape, 1)), placed);
        pen.globalAlpha = .3;
        pen.fillStyle = shape.style.color;
        pen.fill(rings, "evenodd");
        pen.globalAlpha = 1;
      }
      pen.lineJoin = "round";
      pen.setLineDash([]);
      pen.strokeStyle = CASING;
      pen.lineWidth = 2.4 * ratio;
      pen.stroke(path);
      pen.setLineDash(shape.style.dash.map((length) => length * .7 * ratio));
      pen.strokeStyle = shape.style.color;
      pen.lineWidth = 1.3 * ratio;
      pen.stroke(path);
    });
  }

  const SVG = "http://www.w3.org/2000/svg";

  function make(name, attributes) {
    const element = document.createElementNS(SVG, name);
    Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
    return element;
  }

  function ringsOf(shape, scale) {
    let path = "";
    shape.rings.forEach((ring) => {
      for (let at = 0; at < ring.length; at += 2) {
        path += `${at ? "L" : "M"}${ring[at] * scale} ${ring[at + 1] * scale}`;
      }
      path += "Z";
    });
    return path;
  }

  function pathOf(shape, scale, view) {
    let path = drawsRings(shape, view) ? ringsOf(shape, scale) : "";
    if (drawsBox(shape, view)) {
      const [x, y, w, h] = shape.box.map((side) => side * scale);
      path += `M${x} ${y}h${w}v${h}h${-w}Z`;
    }
    return path;
  }

  // One group a shape: its casing, its line, and its text.
  function toSvg(shapes, size, outlines, view, textPx) {
    return shapes.map((shape) => {
      const group = make("g", { "data-key": shape.key, class: shape.style.name });
      const d = pathOf(shape, outlines.scale, view);
      const isFilled = shape.isFilled && drawsRings(shape, view);
      group.append(
        make("path", { d, fill: "none", stroke: CASING, "stroke-width": 3.6, "vector-effect": "non-scaling-stroke" }),
        make("path", {
          d, fill: isFilled ? shape.style.color : "transparent", "fill-opacity": .28, "fill-rule": "evenodd",
          stroke: shape.style.color, "stroke-width": 1.8, "stroke-dasharray": shape.style.dash.join(" ") || "none",
          "vector-effect": "non-scaling-stroke", class: "line",
        }),
      );
      const [x, y, w] = shape.box.map((side) => side * outlines.scale);
      const text = make("text", {
        x: x + w / 2, y: Math.max(y - textPx * .3, textPx), "font-size": textPx, "stroke-width": textPx / 4,
      });
      text.textContent = shape.score === null ? `${shape.label} missed` : `${shape.label} ${shape.score.toFixed(2)}`;
      group.append(text);
      return group;
    });
  }

  return { list, clear, drawOnCanvas, toSvg, make, colorOf };
})();
