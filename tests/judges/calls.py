"""Calls of gRPC by grpcio: each kind, in clear and over TLS."""
import time
from concurrent import futures

import grpc

from common import LARGE, PATIENCE, wait_for
from nodes import LEFT


def call(channel, kind, method):
    return getattr(channel, kind)(f'/judge.Judge/{method}')


def grpc_unary(channel):
    ask = call(channel, 'unary_unary', 'Unary')
    assert ask(b'', timeout=PATIENCE) == b''
    large = bytes(range(256)) * (LARGE // 256)
    assert ask(large, timeout=PATIENCE) == large
    answer, told = ask.with_call(b'x', timeout=PATIENCE, metadata=(('x-echo', 'hello'), ('x-echo-bin', b'\0\xff')))
    assert dict(told.initial_metadata())['x-initial'] == 'hello'
    assert dict(told.trailing_metadata())['x-trailing-bin'] == b'\0\xff'


def grpc_many(channel):
    ask = call(channel, 'unary_unary', 'Unary')
    asked = [ask.future(b'%d' % at, timeout=PATIENCE) for at in range(500)]
    assert [answer.result() for answer in asked] == [b'%d' % at for at in range(500)]


def grpc_compression(channel):
    assert call(channel, 'unary_unary', 'Unary')(b'compress', timeout=PATIENCE) == b'a' * 10_000
    ask = call(channel, 'unary_unary', 'Unary')
    large = b'b' * LARGE
    for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
        assert ask(large, timeout=PATIENCE, compression=compression) == large


def grpc_large(channel):
    """Many windows, up and down at once."""
    large = bytes(range(256)) * (6 * LARGE // 256)
    assert call(channel, 'unary_unary', 'Unary')(large, timeout=PATIENCE) == large
    answers = call(channel, 'stream_stream', 'PingPong')((b'x' * LARGE for _ in range(20)), timeout=PATIENCE)
    assert [len(answer) for answer in answers] == [LARGE] * 20


def grpc_streams(channel):
    assert list(call(channel, 'unary_stream', 'CountUp')(b'1000', timeout=PATIENCE)) == [b'%d' % at for at in range(1000)]
    pieces = (b'x' * size for size in (27182, 8, 1828, 45904))
    assert call(channel, 'stream_unary', 'AddUp')(pieces, timeout=PATIENCE) == b'%d' % (27182 + 8 + 1828 + 45904)
    empty = call(channel, 'stream_stream', 'PingPong')(iter(()), timeout=PATIENCE)
    assert list(empty) == []
    answered = futures.ThreadPoolExecutor(1)
    said = []

    def turns():
        for word in (b'one', b'two', b'three'):
            said.append(word)
            yield word

    answers = [answer for answer in call(channel, 'stream_stream', 'PingPong')(turns(), timeout=PATIENCE)]
    assert answers == [b'ONE', b'TWO', b'THREE'], answers
    answered.shutdown()


def grpc_statuses(channel):
    ask = call(channel, 'unary_unary', 'Refuse')
    for code in grpc.StatusCode:
        if code is grpc.StatusCode.OK:
            continue
        try:
            ask(b'%d' % code.value[0], timeout=PATIENCE)
            raise AssertionError(f'{code} is no success')
        except grpc.RpcError as error:
            assert error.code() is code, (error.code(), code)
            assert error.details() == 'no: 100 % \u00e9 \n end', error.details()
    try:
        call(channel, 'unary_unary', 'Unknown')(b'', timeout=PATIENCE)
        raise AssertionError('nobody knows the method')
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED


def grpc_ends(channel):
    ask = call(channel, 'unary_unary', 'Linger')
    given_up = ask.future(b'given up', timeout=PATIENCE)
    time.sleep(0.2)
    given_up.cancel()
    try:
        ask(b'too late', timeout=0.3)
        raise AssertionError('nobody answers')
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED, error
    wait_for(lambda: sorted(LEFT) == [b'given up', b'too late'], lambda: True)


def grpc_cancels(channel):
    """More than a client may give up that does nothing else, on one connection."""
    ask, count = call(channel, 'unary_unary', 'Unary'), call(channel, 'unary_stream', 'CountUp')
    for at in range(300):
        given_up = count(b'1000000', timeout=PATIENCE)
        assert next(given_up) == b'0'
        given_up.cancel()
        assert ask(b'%d' % at, timeout=PATIENCE) == b'%d' % at


def grpc_cut_short(channel):
    """A node that breaks off behind a message, and within one: what came is given, and the end is no success."""
    wanted = {'BreakBehind': [grpc.StatusCode.UNAVAILABLE], 'BreakWithin': [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL]}
    for method, codes in wanted.items():
        answers = call(channel, 'unary_stream', method)(b'', timeout=PATIENCE)
        assert next(answers) == b'abc'
        try:
            next(answers)
            raise AssertionError('there is no other message')
        except grpc.RpcError as error:
            assert error.code() in codes, (method, error)


def judge_grpc(plain, secure, trusted):
    """Names and cases: each has a channel of its own."""
    options = [('grpc.max_receive_message_length', 8 << 20)]
    trust = grpc.ssl_channel_credentials(trusted.read_bytes())
    named = [*options, ('grpc.ssl_target_name_override', 'a.test')]

    def in_clear(case):
        with grpc.insecure_channel(plain, options=options) as channel:
            case(channel)

    def to_nodes_over_tls(case):
        with grpc.insecure_channel(plain, options=[*options, ('grpc.default_authority', 'secure.test')]) as channel:
            case(channel)

    def over_tls(case):
        with grpc.secure_channel(secure, trust, options=named) as channel:
            case(channel)

    cases = [grpc_unary, grpc_many, grpc_large, grpc_compression, grpc_streams, grpc_statuses, grpc_cancels, grpc_ends]
    for case in cases:
        yield case.__name__, lambda case=case: in_clear(case)
    yield grpc_cut_short.__name__, lambda: in_clear(grpc_cut_short)
    for case in cases[:-1]:
        yield f'{case.__name__}_over_tls', lambda case=case: over_tls(case)
    for case in cases[:-1]:
        yield f'{case.__name__}_to_nodes_over_tls', lambda case=case: to_nodes_over_tls(case)
