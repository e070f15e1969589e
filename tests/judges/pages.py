"""What pages ask of nodes of gRPC: grpc-web as a page would say it, byte by byte, and JSON by httpx."""
import base64
import http.client
import struct

import httpx

from common import PATIENCE


def web_call(at, method, message, is_text, **headers):
    """As XMLHttpRequest would: the messages of the answer, and its status, message and trailers."""
    frame = struct.pack('>BI', 0, len(message)) + message
    kind = 'application/grpc-web-text' if is_text else 'application/grpc-web+proto'
    connection = http.client.HTTPConnection(at, timeout=PATIENCE)
    connection.request('POST', f'/web/judge.Judge/{method}', base64.b64encode(frame) if is_text else frame, {
        'Content-Type': kind, 'Accept': kind, 'X-Grpc-Web': '1', 'Origin': 'https://page.test', **headers,
    })
    answer = connection.getresponse()
    assert answer.status == 200 and answer.headers['Content-Type'] == kind, (answer.status, answer.headers)
    assert answer.headers['Access-Control-Allow-Origin'] == '*'
    body = answer.read()
    if is_text:
        # Each group of four by itself: padding may stand anywhere.
        assert len(body) % 4 == 0
        body = b''.join(base64.b64decode(body[place:place + 4], validate=True) for place in range(0, len(body), 4))
    messages, told = [], {}
    while body:
        flags, length = struct.unpack('>BI', body[:5])
        payload, body = body[5:5 + length], body[5 + length:]
        if flags & 0x80:
            assert not body, 'trailers are the end'
            told = dict(line.split(':', 1) for line in payload.decode().splitlines())
        else:
            messages.append(payload)
    if 'grpc-status' not in told:
        told = {name: answer.headers[name] for name in ('grpc-status', 'grpc-message')}
    connection.close()
    return messages, told


def browser(plain):
    for is_text in (False, True):
        ask = lambda method, message, **headers: web_call(plain, method, message, is_text, **headers)
        large = bytes(range(256)) * 2000
        for message in (b'', b'x', b'xy', b'xyz', large):
            messages, told = ask('Unary', message)
            assert messages == [message] and told['grpc-status'] == '0', told
        _, told = ask('Unary', b'x', **{'x-echo-bin': base64.b64encode(b'\0\xff').decode()})
        assert base64.b64decode(told['x-trailing-bin'] + '==') == b'\0\xff', told
        messages, told = ask('CountUp', b'1000')
        assert messages == [b'%d' % at for at in range(1000)] and told['grpc-status'] == '0'
        for code in (1, 5, 13, 16):
            messages, told = ask('Refuse', b'%d' % code)
            assert (messages, told['grpc-status']) == ([], str(code)), told
            assert told['grpc-message'].startswith('no: 100 %25 %C3%A9'), told
        messages, told = ask('Unknown', b'')
        assert told['grpc-status'] == '12', told


def clients_of_json(plain):
    with httpx.Client(base_url=f'http://{plain}', timeout=PATIENCE) as client:
        said = {'text': 'h\u00e9', 'count': 2**53 + 1, 'parts': [1.5, -0.25], 'yes': True, 'kinds': ['SOME', 'NONE']}
        said['more'] = {'a': {'text': 'b'}}
        said['any'] = {'fields': {'x': {'number_value': 1.0}, 'y': {'string_value': 'z'}}}
        answer = client.post('/say', json=said)
        assert answer.status_code == 200 and answer.headers['content-type'] == 'application/json', answer
        told = answer.json()
        assert {name: told[name] for name in ('text', 'count', 'parts', 'yes', 'kinds', 'any')} == {
            name: said[name] for name in ('text', 'count', 'parts', 'yes', 'kinds', 'any')
        }, told
        assert told['more']['a']['text'] == 'b' and told['more']['a']['count'] == 0, told
        told = client.get('/say', params={'text': 'x y', 'count': '7', 'kinds': 'SOME'}).json()
        assert (told['text'], told['count'], told['kinds'], told['parts']) == ('x y', 7, ['SOME'], []), told
        assert client.post('/say', data={'text': 'form'}).json()['text'] == 'form'
        assert client.post('/say', json={'count': 'x'}).status_code == 400
        for code, status in ((5, 404), (7, 403), (8, 429), (14, 503), (16, 401)):
            answer = client.get('/deny', params={'code': code})
            assert answer.status_code == status and answer.headers['grpc-status'] == str(code), answer.headers
            assert answer.json() == {'error': {'code': code, 'message': 'denied: 100 % \u00e9'}}, answer.text
