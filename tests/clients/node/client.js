// Calls one installation over JSON, Protobuf's gRPC and a stream, and prints what it was told.
//   node client.js <http url> <grpc address> <key> <dify.proto> [certificate]

const fs = require("node:fs");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [url, address, key, proto, certificate] = process.argv.slice(2);
const definition = loader.loadSync(proto, { keepCase: true, longs: Number, defaults: false, oneofs: true });
const { DifyService } = grpc.loadPackageDefinition(definition).ragserve.v1;
const credentials = certificate
  ? grpc.credentials.createSsl(fs.readFileSync(certificate))
  : grpc.credentials.createInsecure();
const client = new DifyService(address, credentials);

const metadata = new grpc.Metadata();
metadata.set("authorization", `Bearer ${key}`);

const call = (method, request, sent = metadata, options = {}) =>
  new Promise((resolve) => {
    client[method](request, sent, options, (error, answer) => {
      if (!error) return resolve({ answer });
      const told = error.metadata.getMap();
      resolve({ code: grpc.status[error.code], details: error.details, error: told["x-error-code"] });
    });
  });

const stream = (request) =>
  new Promise((resolve, reject) => {
    const events = [];
    client
      .StreamText(request, metadata)
      .on("data", (event) => events.push(event))
      .on("error", reject)
      .on("end", () => resolve(events));
  });

const post = async (path, body) => {
  const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
  const answer = await fetch(url + path, { method: "POST", headers, body: JSON.stringify(body) });
  return answer.json();
};

const main = async () => {
  const ask = { prompt: "hello you", max_tokens: 5, temperature: 0 };
  const search = { collection: "docs", query: "ray", top_k: 1 };
  return {
    json: { text: await post("/v1/inference", ask), search: await post("/v1/data/search", search) },
    text: await call("GenerateText", ask),
    search: await call("VectorSearch", search),
    events: await stream(ask),
    anonymous: await call("GenerateText", ask, new grpc.Metadata()),
    wrong: await call("GenerateText", { ...ask, temperature: 3 }),
    late: await call("GenerateText", { prompt: "x ".repeat(1000), max_tokens: 2000 }, metadata, {
      deadline: Date.now() + 300,
    }),
  };
};

main()
  .then((told) => console.log(JSON.stringify(told)))
  .finally(() => client.close());
