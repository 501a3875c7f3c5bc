// A ZIP file of [path, bytes] pairs, uncompressed, as images are compressed already.

const CRCS = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

function crc(bytes) {
  let value = ~0;
  for (const byte of bytes) value = CRCS[(value ^ byte) & 255] ^ (value >>> 8);
  return ~value >>> 0;
}

// Little-endian numbers, from a string with the width of each in bytes.
function numbers(widths, ...values) {
  const view = new DataView(new ArrayBuffer([...widths].reduce((sum, width) => sum + Number(width), 0)));
  let place = 0;
  values.forEach((value, i) => {
    if (widths[i] === "4") view.setUint32(place, value, true);
    else view.setUint16(place, value, true);
    place += Number(widths[i]);
  });
  return new Uint8Array(view.buffer);
}

function zipped(entries) {
  const now = new Date();
  const time = (now.getHours() << 11) | (now.getMinutes() << 5) | (now.getSeconds() >> 1);
  const date = ((now.getFullYear() - 1980) << 9) | ((now.getMonth() + 1) << 5) | now.getDate();
  const files = [], directory = [];
  let offset = 0;
  for (const [path, bytes] of entries) {
    const name = new TextEncoder().encode(path);
    // version 2.0, names in UTF-8, stored; no extra field
    const about = numbers("22222444" + "22", 20, 0x800, 0, time, date, crc(bytes), bytes.length, bytes.length, name.length, 0);
    directory.push(numbers("42", 0x02014b50, 20), about, numbers("22244", 0, 0, 0, 0, offset), name);
    files.push(numbers("4", 0x04034b50), about, name, bytes);
    offset += 4 + about.length + name.length + bytes.length;
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0), n = entries.length;
  const end = numbers("42222442", 0x06054b50, 0, 0, n, n, size, offset, 0);
  return new Blob([...files, ...directory, end], { type: "application/zip" });
}
