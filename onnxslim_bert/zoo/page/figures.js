// The figures of the model that is chosen, drawn for the width that there is.
const chosen = document.querySelectorAll("select.model");
const options = {
  ast: true, // expressions are interpreted: the page's policy lets nothing be compiled
  actions: false, renderer: "svg", defaultStyle: false, tooltip: { disableDefaultStyle: true },
};

function chart(place, spec, values, datasets, size, description) {
  const params = spec.params.map((param) => ({ ...param, value: values[param.name] }));
  const full = { ...spec, ...size, params, description, datasets: { ...spec.datasets, ...datasets } };
  return vegaEmbed(place, full, options);
}

function frontier(place, spec, model, panel, layout) {
  const { width, height, labels } = panel.layouts[layout];
  const { x_title, y_title, points, joined, ticks } = panel;
  const [[x_low, x_high], [y_low, y_high]] = [panel.x, panel.y];
  const values = { x_title: `${x_title}, logarithmic →`, y_title: `↑ ${y_title}`, x_low, x_high, y_low, y_high, ticks };
  const said = `${model.name}: ${x_title}, and ${y_title}; ${points.map((point) => point.said).join("; ")}`;
  return chart(place, spec, values, { points, labels, joined }, { width, height }, said);
}

function layers(place, spec, model, name, title, width) {
  const rows = model.layers.map((row) => ({ layer: row.layer, ...row[name] }));
  const said = `${model.name}: ${title}; ${rows.map((row) => `layer ${row.layer}: ${row.shown}`).join("; ")}`;
  return chart(place, spec, { y_title: title }, { layers: rows }, { width }, said);
}

async function draw() {
  const { specs, models } = await data;
  const model = models[chosen[0].selectedIndex];
  const figures = document.getElementById("figures"), bars = document.getElementById("layers");
  const room = figures.clientWidth; // two wide figures side by side, two narrow ones, one wide, one narrow
  const layout = room >= 1180 || (room >= 590 && room < 740) ? "wide" : "narrow";
  const fresh = (parent, count) => {
    parent.replaceChildren(...Array.from({ length: count }, () => document.createElement("figure")));
    return [...parent.children];
  };
  const drawn = fresh(figures, model.panels.length).map((place, at) =>
    frontier(place, specs.frontier, model, model.panels[at], layout));
  document.getElementById("undrawn").textContent = !model.panels.length ? "No job of this model was compared with it."
    : model.undrawn ? `Not drawn, as there is nothing to compare: ${model.undrawn}.` : "";
  document.getElementById("unstudied").textContent = model.layers.length ? "" : `Not measured: ${model.reason}.`;
  const width = layout === "wide" ? 400 : 230;
  const [alone, spared] = fresh(bars, model.layers.length ? 2 : 0);
  if (alone) {
    drawn.push(layers(alone, specs.layers, model, "alone", "Damage when this layer alone is int8", width));
    drawn.push(layers(spared, specs.layers, model, "spared", "Damage when this layer alone stays float", width));
  }
  await Promise.all(drawn);
  document.body.dataset.drawn = `${model.name} ${layout}`;
}

function choose(index) {
  for (const select of chosen) select.selectedIndex = index;
  return draw();
}

for (const select of chosen) select.addEventListener("change", () => choose(select.selectedIndex));
document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-model], button[data-turn]");
  if (!button) return;
  const count = chosen[0].options.length;
  if (button.dataset.turn) return void choose((chosen[0].selectedIndex + Number(button.dataset.turn) + count) % count);
  choose(Number(button.dataset.model));
  document.getElementById("frontier").scrollIntoView();
});

let settled;
addEventListener("resize", () => { clearTimeout(settled); settled = setTimeout(draw, 150); });
draw();
