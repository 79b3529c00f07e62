/**
 * Listening sockets and the connections they bring, for every binary protocol. A protocol's connection is a state
 * machine over a `Transport` (bytes in, bytes out); here a transport is a TCP socket, in the simulation an in-memory one.
 *
 * Bytes given to `onBytes` are valid only during the call: all sockets share one read buffer (`onread`), which costs a
 * fraction of 'data' events. Who needs the bytes later copies them.
 */
import net from 'node:net';
import { MillraceError } from '../protocol/errors.ts';

/** What a connection is given: one peer's byte stream. */
export interface Transport {
  readonly localHost: string;
  readonly localPort: number;
  readonly remoteHost: string;
  readonly remotePort: number;
  /** Hands the buffers to the peer in order; they must not change before `sent` runs (it never runs after `onClose`). */
  write(buffers: readonly Uint8Array[], sent: () => void): void;
  /** No `onBytes` until `resume`, save for bytes already on their way. */
  pause(): void;
  resume(): void;
  /** Sends what was written, then ends. */
  end(): void;
  /** Ends at once. */
  destroy(): void;
}

/** What a connection must handle. */
export interface TransportHandler {
  onBytes(chunk: Buffer): void;
  /** The peer sends nothing more, but may still read. The handler ends the transport when it has answered. */
  onEnd(): void;
  /** The last call, whatever ended the connection. */
  onClose(): void;
}

export type Accept = (transport: Transport) => TransportHandler;

export interface Listening {
  readonly host: string;
  readonly port: number;
  readonly connectionCount: number;
  /** Stops accepting; connections stay. */
  stopAccepting(): void;
  /** Ends every connection and the server. */
  close(): Promise<void>;
}

export interface ListenOptions {
  host: string;
  port: number;
  /** Asked when a connection comes; without room it is closed at once. */
  hasRoom: () => boolean;
  /** A connection without any traffic for this long is closed. */
  idleMs: number;
  accept: Accept;
  /** False: 'data' events, as where Node does not let go of its handles. Default true. */
  usesSharedBuffer?: boolean;
}

const READ_BUFFER_BYTES = 256 * 1024;
/** Node's timers take no more. */
const TIMER_MS_MAX = 2_147_483_647;

/** Listens on `host:port` (port 0: the system chooses). Rejects with a `MillraceError` that says what to do if the port is taken. */
export async function listen(options: ListenOptions): Promise<Listening> {
  const sockets = new Set<net.Socket>();
  const readBuffer = Buffer.allocUnsafeSlow(READ_BUFFER_BYTES);
  const server = net.createServer(
    { pauseOnConnect: true, noDelay: true, keepAlive: true, allowHalfOpen: true },
    (accepted) => {
      if (!options.hasRoom()) {
        accepted.destroy();
        return;
      }
      const socket = attach(accepted, readBuffer, options);
      if (!socket) return;
      sockets.add(socket);
      socket.once('close', () => sockets.delete(socket));
    },
  );
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => reject(listenError(error, options)));
    server.listen({ host: options.host, port: options.port, backlog: 1024 }, () => resolve());
  });
  // A failure of accept() (out of file descriptors) costs that connection, not the server.
  server.removeAllListeners('error');
  server.on('error', () => {});
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('a TCP server has an address');
  let isAccepting = true;
  const stopAccepting = (): void => {
    if (isAccepting) server.close();
    isAccepting = false;
  };
  return {
    host: options.host,
    port: address.port,
    get connectionCount() {
      return sockets.size;
    },
    stopAccepting,
    async close() {
      stopAccepting();
      for (const socket of sockets) socket.destroy();
      if (server.listening) await new Promise<void>((resolve) => server.once('close', resolve));
    },
  };
}

/** Of the same computer. */
export function isLoopback(host: string): boolean {
  return host === '::1' || host === 'localhost' || /^(::ffff:)?127\./.test(host);
}

/** What to tell whoever chose the address. */
export function listenError(error: NodeJS.ErrnoException, { host, port }: { host: string; port: number }): Error {
  if (error.code === 'EADDRINUSE') {
    return new MillraceError('INVALID_OPTION', `${host}:${port} is already in use; choose another port or 0 for any`, {
      cause: error,
    });
  }
  if (error.syscall === 'listen' || error.syscall === 'getaddrinfo') {
    return new MillraceError('INVALID_OPTION', `cannot listen on ${host}:${port} (${error.code})`, { cause: error });
  }
  return error;
}

/** Whether `listenError` made it of an address that somebody else has. */
export function isInUse(error: unknown): boolean {
  return error instanceof MillraceError && (error.cause as NodeJS.ErrnoException | undefined)?.code === 'EADDRINUSE';
}

/**
 * Wraps an accepted socket so that its reads land in the shared buffer. `onread` is not an option of `createServer`, so
 * the accepted handle moves into a second `Socket`; where Node does not let it (no `_handle`), 'data' events serve.
 */
function attach(accepted: net.Socket, readBuffer: Buffer, options: ListenOptions): net.Socket | undefined {
  let handler: TransportHandler | undefined;
  // Not in Node's types: the handle under the socket, and `handle` as an option of the constructor.
  const { _handle: handle } = accepted as unknown as { _handle?: object };
  const { remoteAddress = '', remotePort = 0, localAddress = '', localPort = 0 } = accepted;
  let socket = accepted;
  if (handle && options.usesSharedBuffer !== false) {
    (accepted as unknown as { _handle: null })._handle = null;
    const init = {
      handle,
      allowHalfOpen: true,
      onread: {
        buffer: readBuffer,
        callback: (size: number, buffer: Uint8Array): boolean => {
          handler?.onBytes((buffer as Buffer).subarray(0, size));
          return true;
        },
      },
    };
    socket = new net.Socket(init as unknown as net.SocketConstructorOpts);
  } else {
    socket.on('data', (chunk: Buffer) => handler?.onBytes(chunk));
  }
  // Every failure of the socket is followed by 'close', which is where the connection ends.
  socket.on('error', () => {});
  if (remoteAddress === '') {
    // The peer was gone before we looked.
    socket.destroy();
    return undefined;
  }
  const transport: Transport = {
    localHost: localAddress,
    localPort,
    remoteHost: remoteAddress,
    remotePort,
    write(buffers, sent) {
      if (buffers.length === 1) {
        socket.write(buffers[0], sentCallback(sent));
        return;
      }
      socket.cork();
      const last = buffers.length - 1;
      for (let index = 0; index < last; index++) socket.write(buffers[index]);
      socket.write(buffers[last], sentCallback(sent));
      socket.uncork();
    },
    pause: () => void socket.pause(),
    resume: () => void socket.resume(),
    end: () => void socket.end(),
    destroy: () => void socket.destroy(),
  };
  handler = options.accept(transport);
  const { onClose } = handler;
  socket.once('close', () => onClose.call(handler));
  socket.setTimeout(Math.min(options.idleMs, TIMER_MS_MAX), () => socket.destroy());
  socket.once('end', () => handler?.onEnd());
  if (socket !== accepted) {
    // With `onread` reading starts with `read(0)`, as node's own `connect` does it.
    socket.read(0);
    socket.resume();
  } else socket.resume();
  return socket;
}

function sentCallback(sent: () => void): (error?: Error | null) => void {
  return (error) => {
    // After a failed write 'close' follows and ends the connection.
    if (!error) sent();
  };
}
