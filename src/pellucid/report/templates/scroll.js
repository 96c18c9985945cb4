"use strict";
(() => {
  const PLANES = ["axial", "coronal", "sagittal"];
  const LONGEST = 300; // pixels of the volume's longest side
  const colours = JSON.parse(document.getElementById("scroll-colours").textContent);

  // a sprite's first channel, slice by slice: (Z, Y, X) as one array of bytes
  const decode = (uri, [depth, height, width]) => new Promise((done, failed) => {
    const sprite = new Image();
    sprite.onload = () => {
      const columns = Math.ceil(Math.sqrt(depth)), canvas = document.createElement("canvas");
      canvas.width = sprite.width; canvas.height = sprite.height;
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(sprite, 0, 0);
      const voxels = new Uint8Array(depth * height * width);
      for (let z = 0; z < depth; z++) {
        const part = context.getImageData((z % columns) * width, Math.floor(z / columns) * height, width, height).data;
        for (let i = 0; i < height * width; i++) voxels[z * height * width + i] = part[4 * i];
      }
      done(voxels);
    };
    sprite.onerror = failed;
    sprite.src = uri;
  });

  // rows, columns and how to find a voxel of a plane across an axis
  const plane = ([depth, height, width], axis) => [
    [height, width, (place, row, column) => (place * height + row) * width + column],
    [depth, width, (place, row, column) => (row * height + place) * width + column],
    [depth, height, (place, row, column) => (row * height + column) * width + place],
  ][axis];

  // a plane as a small canvas, its bytes coloured by paint(byte)
  const picture = (voxels, shape, axis, place, paint) => {
    const [rows, columns, find] = plane(shape, axis), canvas = document.createElement("canvas");
    canvas.width = columns; canvas.height = rows;
    const context = canvas.getContext("2d"), image = context.createImageData(columns, rows);
    const bytes = new Uint8Array(rows * columns);
    for (let row = 0; row < rows; row++)
      for (let column = 0; column < columns; column++) bytes[row * columns + column] = voxels[find(place, row, column)];
    for (let i = 0; i < bytes.length; i++) image.data.set(paint(bytes[i]), 4 * i);
    context.putImageData(image, 0, 0);
    return canvas;
  };
  const grey = (byte) => [byte, byte, byte, 255];
  const coloured = (signed) => {
    const table = signed ? colours.signed : colours.plain;
    return (byte) => [table[3 * byte], table[3 * byte + 1], table[3 * byte + 2],
      signed ? (Math.abs(byte - 128) < colours.still ? 0 : Math.min(255, 2 * Math.abs(byte - 128)))
        : (byte < 2 * colours.still ? 0 : byte)];
  };
  // lines along the borders of what is inside a plane of a mask
  const outline = (context, voxels, shape, axis, place, wide, high) => {
    const [rows, columns, find] = plane(shape, axis);
    const inside = (row, column) => row >= 0 && column >= 0 && row < rows && column < columns
      && voxels[find(place, row, column)] > 127;
    const line = (c0, r0, c1, r1) => { context.moveTo(c0 * wide, r0 * high); context.lineTo(c1 * wide, r1 * high); };
    context.beginPath();
    for (let row = 0; row < rows; row++)
      for (let column = 0; column < columns; column++) {
        if (!inside(row, column)) continue;
        if (!inside(row - 1, column)) line(column, row, column + 1, row);
        if (!inside(row + 1, column)) line(column, row + 1, column + 1, row + 1);
        if (!inside(row, column - 1)) line(column, row, column, row + 1);
        if (!inside(row, column + 1)) line(column + 1, row, column + 1, row + 1);
      }
    for (const [colour, width] of [["#000", 3], [`rgb(${colours.outline})`, 1.5]]) {
      context.strokeStyle = colour; context.lineWidth = width; context.stroke();
    }
  };

  const element = (name, parent, properties = {}) => parent.appendChild(Object.assign(document.createElement(name), properties));

  const start = async (box) => {
    const data = JSON.parse(box.querySelector("script").textContent);
    const image = await decode(data.image, data.shape);
    const mask = data.mask ? await decode(data.mask, data.shape) : null;
    const maps = data.maps.map(() => null);
    let chosen = 0, shown = true, opacity = 0.75, outlined = true, crossed = true;
    const at = [...data.start];

    const bar = element("div", box, { className: "scroll-bar" });
    const group = element("fieldset", bar);
    element("legend", group, { textContent: "Map" });
    data.maps.forEach((map, number) => {
      const label = element("label", group);
      const radio = element("input", label, { type: "radio", name: data.id, checked: number === 0 });
      label.append(` ${map.title}`);
      radio.addEventListener("change", () => choose(number));
    });
    const tick = (text, act) => {
      const label = element("label", bar), input = element("input", label, { type: "checkbox", checked: true });
      label.append(` ${text}`);
      input.addEventListener("change", () => { act(input.checked); draw(); });
    };
    tick("map", (on) => { shown = on; });
    const faint = element("label", bar, { textContent: "opacity " });
    const range = element("input", faint, { type: "range", min: 0, max: 100, value: 75 });
    range.addEventListener("input", () => { opacity = range.value / 100; draw(); });
    if (mask) tick("outline of the lesion", (on) => { outlined = on; });
    tick("cross-hair", (on) => { crossed = on; });
    const button = element("button", bar, { type: "button", textContent: "to the greatest evidence" });
    button.addEventListener("click", () => { at.splice(0, 3, ...data.maps[chosen].start); draw(); });

    const where = element("output", bar, { className: "scroll-place" });
    const extents = data.shape.map((length, axis) => length * data.steps[axis]);
    const scale = LONGEST / Math.max(...extents);
    const row = element("div", box, { className: "scroll-views" });
    const views = PLANES.map((name, axis) => {
      const [down, across] = [0, 1, 2].filter((each) => each !== axis), view = element("div", row, { className: "scroll-view" });
      const canvas = element("canvas", view, { tabIndex: 0 });
      canvas.width = Math.max(1, Math.round(extents[across] * scale));
      canvas.height = Math.max(1, Math.round(extents[down] * scale));
      canvas.setAttribute("role", "img");
      const slider = element("input", view, { type: "range", min: 0, max: data.shape[axis] - 1, step: 1 });
      slider.setAttribute("aria-label", `${name} slice`);
      const said = element("output", view);
      const go = (place) => { at[axis] = Math.min(data.shape[axis] - 1, Math.max(0, place)); draw(); };
      slider.addEventListener("input", () => go(Number(slider.value)));
      canvas.addEventListener("keydown", (event) => {
        const step = { ArrowUp: -1, ArrowLeft: -1, PageUp: -5, ArrowDown: 1, ArrowRight: 1, PageDown: 5 }[event.key];
        if (step) { event.preventDefault(); go(at[axis] + step); }
      });
      canvas.addEventListener("wheel", (event) => { // only once it was clicked, so that the page scrolls as ever
        if (document.activeElement === canvas) { event.preventDefault(); go(at[axis] + Math.sign(event.deltaY)); }
      }, { passive: false });
      canvas.addEventListener("click", (event) => { // the other planes go through the point
        const frame = canvas.getBoundingClientRect();
        at[down] = Math.min(data.shape[down] - 1, Math.floor((event.clientY - frame.top) / frame.height * data.shape[down]));
        at[across] = Math.min(data.shape[across] - 1, Math.floor((event.clientX - frame.left) / frame.width * data.shape[across]));
        draw();
      });
      return { name, axis, down, across, canvas, slider, said };
    });

    const draw = () => {
      const mm = data.affine.map((row) => Math.round(row[3] + at.reduce((sum, each, axis) => sum + row[axis] * each, 0)));
      where.textContent = `at (${mm.join(", ")}) mm to the right, front and head`;
      views.forEach(paint);
    };
    const paint = ({ name, axis, down, across, canvas, slider, said }) => {
      const context = canvas.getContext("2d"), { width, height } = canvas;
      const lay = (source, alpha) => {
        context.globalAlpha = alpha; context.imageSmoothingEnabled = true;
        context.drawImage(source, 0, 0, width, height);
        context.globalAlpha = 1;
      };
      lay(picture(image, data.shape, axis, at[axis], grey), 1);
      const map = data.maps[chosen], voxels = maps[chosen];
      if (shown && voxels) {
        const place = Math.min(map.shape[axis] - 1, Math.floor((at[axis] + 0.5) * map.shape[axis] / data.shape[axis]));
        lay(picture(voxels, map.shape, axis, place, coloured(map.signed)), opacity);
      }
      const [high, wide] = [height / data.shape[down], width / data.shape[across]];
      if (mask && outlined) outline(context, mask, data.shape, axis, at[axis], wide, high);
      if (crossed) {
        context.beginPath();
        context.moveTo((at[across] + 0.5) * wide, 0); context.lineTo((at[across] + 0.5) * wide, height);
        context.moveTo(0, (at[down] + 0.5) * high); context.lineTo(width, (at[down] + 0.5) * high);
        context.strokeStyle = "rgba(255, 255, 255, .3)"; context.lineWidth = 1; context.stroke();
      }
      context.font = "bold 13px sans-serif"; context.fillStyle = "#fff"; context.strokeStyle = "#000"; context.lineWidth = 3;
      const write = (text, x, y, align, baseline) => {
        context.textAlign = align; context.textBaseline = baseline;
        context.strokeText(text, x, y); context.fillText(text, x, y);
      };
      write(data.sides[across][0], 3, height / 2, "left", "middle");
      write(data.sides[across][1], width - 3, height / 2, "right", "middle");
      write(data.sides[down][0], width / 2, 3, "center", "top");
      write(data.sides[down][1], width / 2, height - 3, "center", "bottom");
      const bar = data.bars[axis] * scale;
      context.fillStyle = "#000"; context.fillRect(4, height - 8, bar + 2, 5);
      context.fillStyle = "#fff"; context.fillRect(5, height - 7, bar, 3);
      context.font = "12px sans-serif";
      write(`${data.bars[axis]} mm`, 5, height - 10, "left", "bottom");
      slider.value = at[axis];
      const slice = Math.floor((at[axis] + 0.5) * data.slices[axis] / data.shape[axis]) + 1;
      said.textContent = `${name}, slice ${slice} of ${data.slices[axis]}`;
      canvas.setAttribute("aria-label", `${said.textContent}, ${shown ? `${map.title} over the image` : "the image alone"}`);
    };
    const choose = async (number) => {
      chosen = number;
      maps[number] = maps[number] || await decode(data.maps[number].uri, data.maps[number].shape);
      draw();
    };
    box.hidden = false;
    await choose(0);
    box.dataset.ready = "";
  };

  const boxes = document.querySelectorAll("[data-scroll]");
  const seen = new IntersectionObserver((entries) => entries.forEach((entry) => {
    if (entry.isIntersecting) { seen.unobserve(entry.target); start(entry.target.querySelector(".scroll-box")); }
  }), { rootMargin: "600px" });
  boxes.forEach((box) => seen.observe(box));
})();
