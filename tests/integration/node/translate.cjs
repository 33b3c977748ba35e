// A client made of the public contract alone. Run by tests/integration/test_node_client.py as
//
//     NODE_PATH=build/node/node_modules node translate.cjs translation.proto HOST:PORT TEXT...
//
// It prints one JSON object: what Translate, TranslateStream and Score answered, and how many calls' answers came
// compressed. Its requests are compressed (2: gzip).
const zlib = require('zlib');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

const [proto, target, ...texts] = process.argv.slice(2);
const { dragoman } = grpc.loadPackageDefinition(protoLoader.loadSync(proto, { enums: String, defaults: true }));
const options = { 'grpc.default_compression_algorithm': 2 };
const client = new dragoman.v1.TranslationService(target, grpc.credentials.createInsecure(), options);
let unpacked = 0;
const { createGunzip } = zlib;
Object.defineProperty(zlib, 'createGunzip', { value: () => (unpacked++, createGunzip()) });
const languages = { sourceLanguage: 'en', targetLanguage: 'fr' };
const ask = (method, request) =>
  new Promise((resolve, reject) =>
    client[method](request, { deadline: Date.now() + 30000 }, (error, answer) => (error ? reject(error) : resolve(answer))));

function stream() {
  const call = client.TranslateStream();
  const found = {};
  call.on('data', ({ id, result }) => { found[id] = result.translation.text; });
  call.write({ config: languages });
  texts.forEach((text, number) => call.write({ text: { id: String(number), text } }));
  call.end();
  return new Promise((resolve, reject) => call.on('end', () => resolve(found)).on('error', reject));
}

async function main() {
  const { results } = await ask('Translate', { texts, ...languages, options: { numBeams: 2 } });
  const translations = results.map(({ translation }) => translation.text);
  const pairs = texts.map((source, number) => ({ source, target: translations[number] }));
  const scored = await ask('Score', { pairs, ...languages });
  const long = await ask('Translate', { texts: Array(64).fill(texts[0]), ...languages, includeTokenIds: true });
  const refused = await ask('Translate', { texts: [], ...languages }).catch((error) => grpc.status[error.code]);
  console.log(JSON.stringify({
    translations,
    reasons: results.map((result) => result.finishReason),
    streamed: await stream(),
    scores: scored.results.map((result) => result.score.score),
    refused,
    unpacked,
    long: long.results.map(({ translation }) => translation.text),
  }));
  client.close();
}

main();
