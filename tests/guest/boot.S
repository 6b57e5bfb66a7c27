#define MULTIBOOT_MAGIC 0x1badb002
#define MULTIBOOT_WANT_MEMORY_MAP 2
#define STACK_SIZE 16384

  .section .multiboot, "a"
  .align 4
  .long MULTIBOOT_MAGIC
  .long MULTIBOOT_WANT_MEMORY_MAP
  .long -(MULTIBOOT_MAGIC + MULTIBOOT_WANT_MEMORY_MAP)

  .text
  .global Start
Start:
  cli
  cld
  mov $stack_top, %esp
  # The loader's descriptor table may lie in RAM that is about to be filled.
  lgdt gdt_pointer
  ljmp $8, $1f
1:
  mov $16, %cx
  mov %cx, %ds
  mov %cx, %es
  mov %cx, %fs
  mov %cx, %gs
  mov %cx, %ss
  push %ebx
  push %eax
  call Main
2:
  cli
  hlt
  jmp 2b

  .section .rodata
  .align 8
gdt:
  .quad 0
  .quad 0x00cf9b000000ffff  # 8: flat code
  .quad 0x00cf93000000ffff  # 16: flat data
gdt_pointer:
  .word . - gdt - 1
  .long gdt

  .bss
  .align 16
  .skip STACK_SIZE
stack_top:

  .section .note.GNU-stack, "", @progbits
