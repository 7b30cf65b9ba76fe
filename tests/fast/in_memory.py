"""A model server without a network: stands in for the gRPC channel of a client and computes by the table of a task."""

import grpc

from components import signatures
from components.transducer import ADDITION
from serving import protos, tensors

UNITS = 3


class Failure(grpc.RpcError):
    """What a call ends with when the server refuses."""

    def __init__(self, code, details):
        super().__init__(details)
        self._code, self._details = code, details

    def code(self):
        return self._code

    def details(self):
        return self._details


class Channel:
    """Serves `version`, which computes `task`; `requests` holds what was asked.

    `spoil`, given (signature, outputs), may change an answer or raise.
    """

    def __init__(self, spoil=lambda signature, outputs: None, task=ADDITION):
        self.task = task
        self.version = 1
        self.requests = []
        self.timeouts = []
        self.spoil = spoil

    def unary_unary(self, method, **_):
        answer = {"Predict": self._predict, "GetModelMetadata": self._metadata, "GetModelStatus": self._status}.get(method.split("/")[-1])

        def call(request, timeout=None):
            self.requests.append(request)
            self.timeouts.append(timeout)
            return answer(request)

        return call

    def _check(self, spec):
        if spec.HasField("version") and spec.version.value != self.version:
            raise Failure(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Specific({spec.name}, {spec.version.value})")

    def _predict(self, request):
        spec = request.model_spec
        self._check(spec)
        outputs = getattr(self, f"_{spec.signature_name}")({name: tensors.decode(value) for name, value in request.inputs.items()})
        self.spoil(spec.signature_name, outputs)
        response = protos.load().predict.PredictResponse()
        response.model_spec.version.value = self.version
        for name, value in outputs.items():
            if not request.output_filter or name in request.output_filter:
                response.outputs[name].CopyFrom(value)
        return response

    def _add_bits(self, inputs):
        a, b = _rows(inputs[signatures.A]), _rows(inputs[signatures.B])
        return {signatures.SUM: _bits([self._flushed(x, y) for x, y in zip(a, b)])}

    def _serving_default(self, inputs):
        examples = [protos.load().example.Example.FromString(value).features.feature for value in inputs[signatures.EXAMPLES].values]
        pairs = [(list(example["a"].int64_list.value), list(example["b"].int64_list.value)) for example in examples]
        longest = max(len(a) for a, _ in pairs) + 1
        rows = [self._flushed(a, b) for a, b in pairs]
        lengths = tensors.bits_tensor([0], len(pairs))
        del lengths.tensor_shape.dim[0]
        lengths.ClearField("tensor_content")
        lengths.int64_val.extend(len(a) for a, _ in pairs)
        return {signatures.SUM: _bits([row + [0] * (longest - len(row)) for row in rows]), signatures.LENGTH: lengths}

    def _step(self, inputs):
        state = inputs[signatures.STATE]
        assert state.shape[1] == UNITS
        sums, states = [], []
        for row, (a, b) in enumerate(zip(_rows(inputs[signatures.A]), _rows(inputs[signatures.B]))):
            carry, bits = int(state.values[row * UNITS]), []
            for pair in zip(a, b):
                bit, carry = self.task.step(carry, pair)
                bits.append(bit)
            sums.append(bits)
            states += [float(carry)] + [0.5] * (UNITS - 1)
        return {
            signatures.SUM: _bits(sums),
            signatures.STATE: tensors.float_tensor(states, state.shape),
        }

    def _flushed(self, a, b):
        return self.task.outputs([*zip(a, b), (0, 0)])

    def _metadata(self, request):
        self._check(request.model_spec)
        apis = protos.load()
        found = apis.metadata.SignatureDefMap()
        info = found.signature_def[signatures.STEP].inputs[signatures.STATE]
        info.dtype = apis.types.DT_FLOAT
        for size in (-1, UNITS):
            info.tensor_shape.dim.add(size=size)
        response = apis.metadata.GetModelMetadataResponse()
        response.model_spec.version.value = self.version
        response.metadata["signature_def"].Pack(found)
        return response

    def _status(self, request):
        apis = protos.load()
        return apis.status.GetModelStatusResponse(
            model_version_status=[apis.status.ModelVersionStatus(version=self.version, state=apis.status.ModelVersionStatus.AVAILABLE)]
        )


def _rows(tensor):
    rows, length = tensor.shape
    return [list(tensor.values[row * length : (row + 1) * length]) for row in range(rows)]


def _bits(rows):
    digits = "".join(str(bit) for row in rows for bit in row).encode()
    return tensors.bit_digits_tensor(digits, (len(rows), len(rows[0])))
