"""A model server without a network: stands in for the gRPC channel of a client and computes by the table of a task."""

import asyncio

import grpc

from components import signatures
from components.task.transducer import ADDITION
from serving import protos, tensors

UNITS = 3


class Failure(grpc.RpcError):
    """The error of a call that the server refuses."""

    def __init__(self, code, details):
        super().__init__(details)
        self._code, self._details = code, details

    def code(self):
        return self._code

    def details(self):
        return self._details


class Channel:
    """Serves `version`, which computes `task`; `requests` holds what was asked, `cancelled` counts the calls given up.

    `spoil`, given (signature, outputs), may change an answer or raise. `labels` are those of the version. Without
    `packed` the model has no signature for packed bits. Its signatures are named by `verb`, the task's unless another
    is given.
    """

    def __init__(
        self,
        spoil=lambda signature, outputs: None,
        task=ADDITION,
        packed=True,
        labels=("stable",),
        units=UNITS,
        verb=None,
    ):
        self.task = task
        self._verb = verb
        self.version = 1
        self.requests = []
        self.timeouts = []
        self.cancelled = 0
        self.spoil = spoil
        self.packed = packed
        self.labels = labels
        self.units = units

    def unary_unary(self, method, **_):
        return _Method(self, method.split("/")[-1])

    def answer(self, method, request, timeout=None):
        """The response, or Failure."""
        # A copy: the client may change its request and send it again.
        self.requests.append(type(request).FromString(request.SerializeToString()))
        self.timeouts.append(timeout)
        return {"Predict": self._predict, "GetModelMetadata": self._metadata, "GetModelStatus": self._status}[method](
            request
        )

    @property
    def predictions(self):
        """The requests for predictions among `requests`."""
        return [request for request in self.requests if hasattr(request, "inputs")]

    @property
    def verb(self):
        """The verb in the names of the signatures."""
        return self._verb or self.task.verb

    def _check(self, spec):
        if spec.HasField("version") and spec.version.value != self.version:
            raise Failure(
                grpc.StatusCode.NOT_FOUND,
                f"Servable not found for request: Specific({spec.name}, {spec.version.value})",
            )
        if spec.version_label and spec.version_label not in self.labels:
            raise Failure(
                grpc.StatusCode.INVALID_ARGUMENT, f"Unrecognized servable version label: {spec.version_label}"
            )

    def _predict(self, request):
        spec = request.model_spec
        self._check(spec)
        answer = self._signatures().get(spec.signature_name)
        if answer is None:
            raise Failure(
                grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{spec.signature_name}" not found.'
            )
        outputs = answer({name: tensors.decode(value) for name, value in request.inputs.items()})
        self.spoil(spec.signature_name, outputs)
        response = protos.load().predict.PredictResponse()
        response.model_spec.version.value = self.version
        for name, value in outputs.items():
            if not request.output_filter or name in request.output_filter:
                response.outputs[name].CopyFrom(value)
        return response

    def _signatures(self):
        packed = {signatures.packed(self.verb): self._packed} if self.packed else {}
        by_name = {signatures.SERVING_DEFAULT: self._serving_default, signatures.bits(self.verb): self._bits}
        return by_name | {signatures.STEP: self._step} | packed

    def _bits(self, inputs):
        a, b = _rows(inputs[signatures.A]), _rows(inputs[signatures.B])
        return {signatures.SUM: _bits([self._flushed(x, y) for x, y in zip(a, b, strict=True)])}

    def _serving_default(self, inputs):
        examples = [
            protos.load().example.Example.FromString(value).features.feature
            for value in inputs[signatures.EXAMPLES].values
        ]
        pairs = [(list(example["a"].int64_list.value), list(example["b"].int64_list.value)) for example in examples]
        longest = max(len(a) for a, _ in pairs) + 1
        rows = [self._flushed(a, b) for a, b in pairs]
        lengths = tensors.bits_tensor([0], len(pairs))
        del lengths.tensor_shape.dim[0]
        lengths.ClearField("tensor_content")
        lengths.int64_val.extend(len(a) for a, _ in pairs)
        return {signatures.SUM: _bits([row + [0] * (longest - len(row)) for row in rows]), signatures.LENGTH: lengths}

    def _step(self, inputs):
        sums, states = self._run(_rows(inputs[signatures.A]), _rows(inputs[signatures.B]), inputs[signatures.STATE])
        return {signatures.SUM: _bits(sums), signatures.STATE: states}

    def _packed(self, inputs):
        a, b = inputs[signatures.A].values, inputs[signatures.B].values
        sizes = {len(row) for row in (*a, *b)}
        if len(a) != len(b) or len(sizes) != 1 or 0 in sizes:
            raise Failure(grpc.StatusCode.INVALID_ARGUMENT, "a and b must hold the same number of bytes, at least 1")
        sums, states = self._run([*map(_unpacked, a)], [*map(_unpacked, b)], inputs[signatures.STATE])
        return {signatures.SUM: tensors.string_tensor([_packed(bits) for bits in sums]), signatures.STATE: states}

    def _run(self, rows_a, rows_b, state):
        """Outputs and the states after them; the carry is the first of a row's numbers."""
        if state.shape != (len(rows_a), self.units):
            raise Failure(grpc.StatusCode.INVALID_ARGUMENT, f"state must have shape [{len(rows_a)} {self.units}]")
        sums, states = [], []
        for row, (a, b) in enumerate(zip(rows_a, rows_b, strict=True)):
            carry, bits = int(state.values[row * self.units]), []
            for pair in zip(a, b, strict=True):
                bit, carry = self.task.step(carry, pair)
                bits.append(bit)
            sums.append(bits)
            states += [float(carry)] + [0.5] * (self.units - 1)
        return sums, tensors.float_tensor(states, state.shape)

    def _flushed(self, a, b):
        return self.task.outputs([*zip(a, b, strict=True), (0, 0)])

    def _metadata(self, request):
        self._check(request.model_spec)
        apis = protos.load()
        found = apis.metadata.SignatureDefMap()
        for signature in self._signatures():
            named = found.signature_def[signature]
            if signature not in (signatures.STEP, signatures.packed(self.verb)):
                continue
            info = named.inputs[signatures.STATE]
            info.dtype = apis.types.DT_FLOAT
            for size in (-1, self.units):
                info.tensor_shape.dim.add(size=size)
        response = apis.metadata.GetModelMetadataResponse()
        response.model_spec.version.value = self.version
        response.metadata["signature_def"].Pack(found)
        return response

    def _status(self, request):
        apis = protos.load()
        return apis.status.GetModelStatusResponse(
            model_version_status=[
                apis.status.ModelVersionStatus(version=self.version, state=apis.status.ModelVersionStatus.AVAILABLE)
            ]
        )


class AsyncChannel:
    """The same server as `channel`, as a channel of grpc.aio; a call takes `seconds`."""

    def __init__(self, channel):
        self._channel = channel
        self.seconds = 0

    def unary_unary(self, method, **_):
        async def answer(request, timeout):
            try:
                await asyncio.sleep(self.seconds)
                return self._channel.answer(method.split("/")[-1], request, timeout)
            except asyncio.CancelledError:
                self._channel.cancelled += 1
                raise

        return lambda request, timeout=None: asyncio.ensure_future(answer(request, timeout))


class _Method:
    def __init__(self, channel, name):
        self._channel, self._name = channel, name

    def __call__(self, request, timeout=None):
        return self._channel.answer(self._name, request, timeout)

    def future(self, request, timeout=None):
        return _Future(self._channel, self, request, timeout)


class _Future:
    """A call that is answered when somebody waits for it."""

    def __init__(self, channel, method, request, timeout):
        self._channel, self._done = channel, False
        self._answer = lambda: method(request, timeout)

    def add_done_callback(self, callback):
        self._callback = callback

    def result(self):
        self._done = True
        try:
            return self._answer()
        finally:
            self._callback(self)

    def cancel(self):
        if not self._done:
            self._channel.cancelled += 1
            self._callback(self)


def _rows(tensor):
    rows, length = tensor.shape
    return [list(tensor.values[row * length : (row + 1) * length]) for row in range(rows)]


def _bits(rows):
    digits = "".join(str(bit) for row in rows for bit in row).encode()
    return tensors.bit_digits_tensor(digits, (len(rows), len(rows[0])))


def _unpacked(row):
    return [byte >> place & 1 for byte in row for place in range(8)]


def _packed(bits):
    return bytes(
        sum(bit << place for place, bit in enumerate(bits[start : start + 8])) for start in range(0, len(bits), 8)
    )
