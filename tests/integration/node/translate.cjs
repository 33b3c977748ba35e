// A client made of the public contract alone. Run by tests/integration/test_node_client.py as
//
//     NODE_PATH=build/node/node_modules node translate.cjs translation.proto HOST:PORT TEXT...
//
// It prints one JSON object: what Translate, TranslateStream and Score answered.
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

const [proto, target, ...texts] = process.argv.slice(2);
const { dragoman } = grpc.loadPackageDefinition(protoLoader.loadSync(proto, { enums: String, defaults: true }));
const client = new dragoman.v1.TranslationService(target, grpc.credentials.createInsecure());
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
  const refused = await ask('Translate', { texts: [], ...languages }).catch((error) => grpc.status[error.code]);
  console.log(JSON.stringify({
    translations,
    reasons: results.map((result) => result.finishReason),
    streamed: await stream(),
    scores: scored.results.map((result) => result.score.score),
    refused,
  }));
  client.close();
}

main();
