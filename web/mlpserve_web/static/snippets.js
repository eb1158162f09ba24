// The call that was just made, for a terminal and for a program.

const short = (value) => +value.toFixed(4);
const rounded = (values) => (Array.isArray(values) ? values.map(rounded) : short(values));

export function curl(model, version, instance) {
  const path = version ? `/v2/models/${model}/versions/${version}/infer` : `/v2/models/${model}/infer`;
  const tensor = { name: "instances", datatype: "FP32", shape: instance.shape, data: instance.values.map(short) };
  const body = JSON.stringify({ inputs: [tensor], outputs: [{ name: "labels" }] });
  return `curl ${location.origin}${path} -d '${body}'`;
}

export function python(target, version, instance) {
  const choice = version ? `, version=${version}` : "";
  return [
    "import numpy as np",
    "from mlpserve_client import Client",
    "",
    `x = np.array(${JSON.stringify(rounded(instance.values))}, np.float32)`,
    `with Client(${JSON.stringify(target)}) as client:`,
    `    answer = client.predict(x.reshape(${JSON.stringify(instance.shape)})${choice})`,
    "    print(answer.name, answer.top(3))",
  ].join("\n");
}
