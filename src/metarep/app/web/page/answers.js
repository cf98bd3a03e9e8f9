// The answer to one image: what the graph says of the model's own classes, and prototypes for what was added here.

const dot = (a, b) => {
  let sum = 0;
  for (let i = 0; i < a.length; i += 1) sum += a[i] * b[i];
  return sum;
};

// A copy of length 1.
export function unit(vector) {
  const length = Math.max(Math.sqrt(dot(vector, vector)), 1e-12);
  return Float64Array.from(vector, (each) => each / length);
}

export const cosine = (a, b) => dot(unit(a), unit(b));

// The sum of exponentials, as its logarithm.
const logSum = (values) => {
  const most = Math.max(...values);
  return most + Math.log(values.reduce((sum, each) => sum + Math.exp(each - most), 0));
};

// The classes of the model and of the visitor, each with its mean before and after what was added; `before` is null for
// a class that was added. `added` is a list of {label, points}.
export function classesWith(model, added) {
  const { classes, counts, means } = model;
  const dim = means.length / classes.length;
  const all = classes.map((name, i) => {
    const mean = Float64Array.from(means.subarray(i * dim, (i + 1) * dim));
    return { name, count: counts[i], sum: mean.map((each) => each * counts[i]), before: unit(mean) };
  });
  const byName = new Map(all.map((each) => [each.name, each]));
  for (const { label, points } of added) {
    if (!byName.has(label)) {
      byName.set(label, { name: label, count: 0, sum: new Float64Array(dim), before: null });
      all.push(byName.get(label));
    }
    const one = byName.get(label);
    one.count += 1;
    points.forEach((each, i) => (one.sum[i] += each));
  }
  return all.map((each) => ({ ...each, after: unit(each.sum) })); // the direction of a sum is that of its mean
}

// The answer from the outputs of the graph. Without additions it is exactly what the graph says. Otherwise the logit of
// a class that was added is its scaled cosine; the model's own classes share what their cosines have together, by the
// probabilities of the graph, and images that were added to one move it by what they change in its cosine.
export function answer(model, classes, { probabilities, familiarity, points }) {
  const { counts, trust, prototype_scale: scale, sharpness, root, short, shared, typical, eased } = model;
  let shares = Array.from(probabilities);
  let known = familiarity;
  if (classes.some(({ before, after }) => !before || before.some((each, i) => Math.abs(each - after[i]) > 1e-9))) {
    const own = unit(points);
    const spread = (images) => Math.sqrt(shared + (1 - shared) / images);
    const level = (images) => spread(images) / spread(typical); // see Centre.levels
    const cosines = classes.map((each) => dot(own, each.after));
    const after = classes.map((each, i) => cosines[i] * level(each.count) ** eased);
    const before = classes.map((each, i) => (each.before ? dot(own, each.before) * level(counts[i]) ** eased : 0));
    const mass = logSum(classes.flatMap((each, i) => (each.before ? [scale * before[i]] : [])));
    const logits = classes.map((each, i) =>
      each.before ? Math.log(Math.max(shares[i], 1e-30)) + mass + scale * (after[i] - before[i]) : scale * after[i],
    );
    const total = logSum(logits);
    shares = logits.map((each) => Math.exp(each - total));
    const like = cosines.map((each, i) => each * level(classes[i].count));
    const length = Math.max(Math.sqrt(dot(points, points)), short);
    known = logSum(like.map((each) => sharpness * each)) / sharpness / length ** root;
  }
  const order = shares.map((_, i) => i).sort((a, b) => shares[b] - shares[a]);
  const likely = order.filter((i) => shares[i] >= trust.likely);
  return {
    label: classes[order[0]].name,
    probability: shares[order[0]],
    known: trust.known === null || known >= trust.known,
    label_set: (likely.length ? likely : order.slice(0, 1)).map((i) => classes[i].name),
    probabilities: Object.fromEntries(classes.map(({ name }, i) => [name, shares[i]])),
    familiarity: known,
    neighbours: [],
  };
}
