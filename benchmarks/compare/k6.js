// Calls Predict from many users for a while and checks each answer's status and label: what
// h2load cannot see. Prints nothing of its own; the counts are in the exported summary.
//
//     k6 run -e ADDRESS=... -e PROTO=FOLDER -e INSTANCE=BASE64 -e LABEL=N k6.js

import grpc from 'k6/net/grpc';
import { check } from 'k6';

const client = new grpc.Client();
client.load([__ENV.PROTO], 'mlpserve/v1/prediction.proto');

const request = {
  instance: { dtype: 'DATA_TYPE_FLOAT32', shape: ['784'], data: __ENV.INSTANCE },
};
const label = Number(__ENV.LABEL);
let connected = false;

export default function () {
  if (!connected) {
    client.connect(__ENV.ADDRESS, { plaintext: true });
    connected = true;
  }
  const response = client.invoke('mlpserve.v1.PredictionService/Predict', request);
  check(response, {
    OK: (r) => r && r.status === grpc.StatusOK,
    'right label': (r) => r && r.message && r.message.label === label,
  });
}
