"""What goes to a kit over SSH, and the program that runs there.

link        commands and files over the system's OpenSSH
checks      what is looked at on a kit before anything is changed, each finding with its remedy
install     versions in folders, hashes, the switch from one to another, back, and removal
service     the systemd unit
bundle      the same as a .zip, for kits without network
kit_program the program for the kit: Python 3.5 syntax, copied as it is and never imported here
"""
