"""Numbers of the dtypes that safetensors has, read and written without any package."""
import math
import struct
from collections import namedtuple

Tensor = namedtuple("Tensor", "dtype shape data")

BITS = {"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
        "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32,
        "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64}
STRUCT = {"BOOL": "B", "U8": "B", "I8": "b", "I16": "h", "U16": "H", "F16": "e", "I32": "i", "U32": "I", "F32": "f",
          "F64": "d", "I64": "q", "U64": "Q"}
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def count(shape):
    return math.prod(shape)


def small_float(code, mantissa_bits, bias, unsigned_zero=False):
    """The number of an 8-bit code. `unsigned_zero`: of the FNUZ kinds, whose negative zero is their one NaN."""
    if unsigned_zero and code == 0x80:
        return math.nan
    mantissa, exponent = code & (1 << mantissa_bits) - 1, code >> mantissa_bits & (1 << 7 - mantissa_bits) - 1
    if exponent == 0:
        value = mantissa * 2.0 ** (1 - bias - mantissa_bits)
    else:
        value = (mantissa + (1 << mantissa_bits)) * 2.0 ** (exponent - bias - mantissa_bits)
    return -value if code & 0x80 else value


def e4m3(code):
    return math.nan if code & 0x7F == 0x7F else small_float(code, 3, 7)


def e5m2(code):
    if code & 0x7F > 0x7C:
        return math.nan
    if code & 0x7F == 0x7C:
        return -math.inf if code & 0x80 else math.inf
    return small_float(code, 2, 15)


TABLES = {
    "F8_E4M3": [e4m3(code) for code in range(256)],
    "F8_E5M2": [e5m2(code) for code in range(256)],
    "F8_E4M3FNUZ": [small_float(code, 3, 8, True) for code in range(256)],
    "F8_E5M2FNUZ": [small_float(code, 2, 16, True) for code in range(256)],
    "F8_E8M0": [math.nan if code == 255 else 2.0 ** (code - 127) for code in range(256)],
}
REAL = {*STRUCT, *TABLES, "BF16", "F4"} - {"BOOL"}
FLOATS = {"F16", "BF16", "F32", "F64"}


def decode(tensor):
    """The numbers of a tensor of REAL numbers, the last dimension fastest."""
    dtype, data = tensor.dtype, tensor.data
    if dtype in TABLES:
        table = TABLES[dtype]
        return [table[code] for code in data]
    if dtype == "BF16":
        wide = bytearray(2 * len(data))
        wide[2::4], wide[3::4] = data[0::2], data[1::2]
        return list(struct.unpack(f"<{len(data) // 2}f", wide))
    if dtype == "F4":
        codes = [code >> shift & 15 for code in data for shift in (0, 4)]
        return [-E2M1[code & 7] if code & 8 else E2M1[code & 7] for code in codes]
    return list(struct.unpack(f"<{len(data) * 8 // BITS[dtype]}{STRUCT[dtype]}", data))


def encode(dtype, numbers):
    """The numbers in another dtype, or None where it does not hold them all exactly."""
    try:
        if dtype in TABLES:
            codes = {value: code for code, value in reversed(list(enumerate(TABLES[dtype])))}
            data = bytes(codes[number] for number in numbers)
        elif dtype == "BF16":
            wide = struct.pack(f"<{len(numbers)}f", *numbers)
            data = b"".join(wide[i + 2:i + 4] for i in range(0, len(wide), 4))
        elif dtype == "F4":
            codes = [E2M1.index(abs(number)) | 8 * (number < 0) for number in numbers]
            data = bytes(low | high << 4 for low, high in zip(codes[::2], codes[1::2], strict=True))
        elif dtype == "C64":
            data = b"".join(struct.pack("<2f", number, 0) for number in numbers)
            return data if decode(Tensor("F32", [], data))[::2] == numbers else None
        elif dtype not in STRUCT:
            return None
        else:
            whole = STRUCT[dtype].lower() not in "efd"
            if dtype == "BOOL" and not set(numbers) <= {0, 1} or whole and any(number != int(number) for number in numbers):
                return None
            data = struct.pack(f"<{len(numbers)}{STRUCT[dtype]}", *(map(int, numbers) if whole else numbers))
    except (KeyError, ValueError, OverflowError, struct.error):
        return None
    return data if decode(Tensor(dtype, [], data)) == numbers else None
