"use strict";
// Whatever comes from a run is put on the page by textContent, never as markup.
(() => {
  const make = (tag, name, text) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const read = (id) => {
    const element = document.getElementById(id);
    return element && JSON.parse(element.textContent);
  };

  // Values of a chart under the pointer, or by the arrow keys.
  const { frame, charts } = read("hover") || { charts: [] };
  const nearest = (points, step) => points.reduce((a, b) => (Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a));
  for (const svg of document.querySelectorAll("svg[data-chart]")) {
    const chart = charts[Number(svg.dataset.chart)];
    const figure = svg.parentNode, tip = figure.querySelector(".tip"), cross = svg.querySelector(".cross");
    const steps = [...new Set(chart.lines.flatMap((line) => line.points.map((point) => point[0])))].sort((a, b) => a - b);
    let place = steps.length - 1;
    const show = (index) => {
      place = Math.max(0, Math.min(steps.length - 1, index));
      const step = steps[place], x = frame.left + ((frame.right - frame.left) * step) / chart.last;
      cross.setAttribute("d", `M${x} ${frame.top}V${frame.bottom}`);
      tip.replaceChildren(make("b", "", `step ${step}`));
      for (const line of chart.lines) {
        const [at, text] = nearest(line.points, step);
        const name = line.name ? `${line.name} ` : "";
        tip.append(make("div", line.colour, name + text + (at === step ? "" : ` (step ${at})`)));
      }
      tip.hidden = false;
      const scale = svg.clientWidth / frame.width, right = x * scale + 12;
      const fits = right + tip.offsetWidth <= figure.clientWidth;
      tip.style.left = `${Math.max(0, fits ? right : x * scale - 12 - tip.offsetWidth)}px`;
      tip.style.top = `${figure.querySelector("figcaption").offsetHeight + 8}px`;
    };
    const hide = () => { tip.hidden = true; cross.setAttribute("d", ""); };
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const step = ((((event.clientX - box.left) / box.width) * frame.width - frame.left) / (frame.right - frame.left)) * chart.last;
      let best = 0;
      steps.forEach((other, i) => { if (Math.abs(other - step) < Math.abs(steps[best] - step)) best = i; });
      show(best);
    });
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("blur", hide);
    svg.addEventListener("focus", () => { if (svg.matches(":focus-visible")) show(place); });
    svg.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: steps.length - 1 }[event.key];
      if (event.key === "Escape") hide();
      if (move === undefined) return;
      event.preventDefault();
      show(move);
    });
  }

  // The texts.
  const data = read("data");
  if (!data) return;
  const MORE = 20;
  const form = document.getElementById("controls"), list = document.getElementById("list");
  const button = document.getElementById("more"), status = document.getElementById("found");
  const controls = form.elements;
  const KINDS = { "held out": "held-out problems, before and after", training: "training rollouts" };
  const plain = (text) => (Array.isArray(text) ? text[0] + text[2] : text || "");
  const texts = data.items.flatMap((item) => item.texts.map((text) => ({
    item, ...text, searched: `${plain(item.question)}\n${plain(text.after.text)}`.toLowerCase(),
  })));
  let found = [], shown = 0;

  const fill = (select, options) => {
    const before = select.value;
    select.replaceChildren(...options.map(([value, text]) => {
      const option = make("option", "", text);
      option.value = value;
      return option;
    }));
    if (options.some(([value]) => value === before)) select.value = before;
    const label = select.closest(".maybe");
    if (label) label.hidden = options.length < 3;
  };
  const distinct = (values) => [...new Set(values)];
  const all = (name, values, text = (value) => value) =>
    [["", `all ${name}`], ...distinct(values).map((value) => [String(value), text(value)])];

  const mark = (parent, text, wanted) => {
    if (!wanted) { parent.append(text); return; }
    const low = text.toLowerCase();
    // Lower case may be longer than the text (Turkish I): then nothing is marked, and all of it shown.
    if (low.length !== text.length) { parent.append(text); return; }
    let from = 0;
    for (let at = low.indexOf(wanted); at >= 0; at = low.indexOf(wanted, from)) {
      parent.append(text.slice(from, at), make("mark", "", text.slice(at, at + wanted.length)));
      from = at + wanted.length;
    }
    parent.append(text.slice(from));
  };
  const put = (parent, text, wanted) => {
    if (!Array.isArray(text)) { mark(parent, text || "", wanted); return; }
    mark(parent, text[0], wanted);
    parent.append(make("span", "gone", `\n[${text[1].toLocaleString("en")} characters are left out here]\n`));
    mark(parent, text[2], wanted);
  };
  const side = (name, text, wanted) => {
    const box = make("div", "side");
    const head = make("p", "");
    if (name) head.append(make("b", "", name));
    if (!text) { head.append("nothing kept"); box.append(head); return box; }
    head.append(make("span", `tag ${text.right ? "right" : "wrong"}`, text.right ? "right" : "wrong"));
    head.append(make("span", "", `${text.tokens.toLocaleString("en")} tokens`));
    if (text.reward !== null) head.append(make("span", "", `reward ${Number(text.reward.toPrecision(4))}`));
    if (text.cut) head.append(make("span", "tag", "cut off"));
    head.append(make("span", "", text.read === null ? "no answer read" : `answer ${plain(text.read)}`));
    if (text.why) head.append(make("span", "tag wrong", text.why));
    const body = make("pre", "");
    body.dir = "auto";
    put(body, text.text, wanted);
    if (!body.textContent) body.append(make("span", "gone", "(an empty text)"));
    box.append(head, body);
    return box;
  };
  const more = () => {
    const wanted = controls.search.value.trim().toLowerCase();
    let last = shown ? found[shown - 1].item : null, article = list.lastElementChild;
    for (const text of found.slice(shown, shown + MORE)) {
      const { item } = text;
      if (item !== last) {
        article = make("article", "item");
        const run = data.runs.length > 1 ? `${data.runs[item.run]}: ` : "";
        article.append(make("h3", "", `${run}${item.dataset}, step ${item.step}, right answer: ${plain(item.gold)}`));
        const question = make("p", "question");
        question.dir = "auto";
        put(question, item.question, wanted);
        article.append(question);
        list.append(article);
      }
      last = item;
      const sides = make("div", "sides");
      if (item.since !== null) sides.append(side(`before, step ${item.since}`, text.before, ""));
      sides.append(side(item.since === null ? "" : `after, step ${item.step}`, text.after, wanted));
      article.append(sides);
    }
    shown = Math.min(found.length, shown + MORE);
    button.hidden = shown >= found.length;
    status.textContent = `${found.length.toLocaleString("en")} texts found, ${shown.toLocaleString("en")} of them below`;
  };
  const update = () => {
    const of = (kind) => texts.filter((text) => text.item.kind === kind);
    const kind = of(controls.kind.value);
    fill(controls.run, all("runs", kind.map((text) => text.item.run), (run) => data.runs[run]));
    fill(controls.dataset, all("datasets", kind.map((text) => text.item.dataset)));
    fill(controls.step, all("steps", kind.map((text) => text.item.step).sort((a, b) => a - b)));
    const wanted = controls.search.value.trim().toLowerCase();
    const same = (select, value) => select.value === "" || select.value === String(value);
    const pool = kind.filter(({ item, searched }) =>
      same(controls.run, item.run) && same(controls.dataset, item.dataset) && same(controls.step, item.step) &&
      searched.includes(wanted));
    const boxes = [...form.querySelectorAll("[name=filter]")];
    for (const box of boxes) {
      const count = pool.filter((text) => text.marks.includes(Number(box.value))).length;
      box.parentNode.querySelector(".count").textContent = count.toLocaleString("en");
      box.parentNode.hidden = !kind.some((text) => text.marks.includes(Number(box.value))) && !box.checked;
    }
    const filters = boxes.filter((box) => box.checked).map((box) => Number(box.value));
    found = pool.filter((text) => filters.every((filter) => text.marks.includes(filter)));
    if (controls.longest.checked) found.sort((a, b) => b.after.tokens - a.after.tokens);
    shown = 0;
    list.replaceChildren();
    more();
  };
  fill(controls.kind, distinct(texts.map((text) => text.item.kind)).map((kind) => [kind, KINDS[kind]]));
  let waiting = 0;
  form.addEventListener("input", (event) => {
    clearTimeout(waiting);
    if (event.target.name === "search") waiting = setTimeout(update, 150);
    else update();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  button.addEventListener("click", more);
  update();
})();
