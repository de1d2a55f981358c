// Usage: node embed.mjs TRANSFORMERS_FOLDER MODEL_FOLDER TEXT...   prints the vectors as JSON
import path from "node:path";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [library, folder, ...texts] = process.argv.slice(2);
const entry = createRequire(path.join(library, "x.js")).resolve("@huggingface/transformers");
const { env, pipeline } = await import(pathToFileURL(entry));
env.allowRemoteModels = false;
env.localModelPath = path.dirname(folder) + path.sep;
const extract = await pipeline("feature-extraction", path.basename(folder), { dtype: "q8", device: "cpu" });
const vectors = [];
for (const text of texts) vectors.push((await extract(text, { pooling: "mean", normalize: false })).tolist()[0]);
console.log(JSON.stringify(vectors));
