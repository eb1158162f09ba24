// Loads a server through the Open Inference Protocol: many users send one blank instance each, in
// turn, and every answer is checked. Ends with 1 when a check fails or answers are too slow.
//
//     k6 run -e TARGET=localhost:50051 examples/k6/infer.js
//     k6 run -e TARGET=localhost:50051 -e MODEL=mnist -e P99=50 --vus 64 --duration 30s \
//         examples/k6/infer.js
//
// It needs no .proto file: k6 gets the contract from the server by reflection.

import encoding from 'k6/encoding';
import { check } from 'k6';
import exec from 'k6/execution';
import grpc from 'k6/net/grpc';

const service = 'inference.GRPCInferenceService';
const target = __ENV.TARGET || 'localhost:50051';
const model = __ENV.MODEL || 'mnist';
const client = new grpc.Client();
let connected = false;

export const options = {
  vus: 8,
  duration: '5s',
  thresholds: {
    checks: ['rate==1'],
    grpc_req_duration: [`p(99)<${__ENV.P99 || 1000}`],  // milliseconds
  },
};

function connect() {
  if (!connected) {
    client.connect(target, { plaintext: true, reflect: true });
    connected = true;
  }
}

// Once, before the load: what the model takes.
export function setup() {
  connect();
  const ready = client.invoke(`${service}/ModelReady`, { name: model });
  if (ready.status !== grpc.StatusOK || !ready.message.ready) {
    exec.test.abort(`${model} is not ready at ${target}`);
  }
  const { message } = client.invoke(`${service}/ModelMetadata`, { name: model });
  const size = message.inputs[0].shape.slice(1).reduce((product, n) => product * Number(n), 1);
  client.close();
  connected = false;
  return {
    model_name: model,
    inputs: [{ name: message.inputs[0].name, datatype: 'UINT8', shape: ['1', String(size)] }],
    raw_input_contents: [encoding.b64encode(new Uint8Array(size).buffer)],
  };
}

export default function (request) {
  connect();
  const response = client.invoke(`${service}/ModelInfer`, request);
  check(response, {
    OK: (r) => r && r.status === grpc.StatusOK,
    'one label and its probabilities': (r) =>
      r && r.message && r.message.outputs.map((output) => output.name).join() === 'labels,probabilities',
  });
}
